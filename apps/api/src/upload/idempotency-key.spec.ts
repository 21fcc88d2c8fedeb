import { IdempotencyKey } from './idempotency-key.js';

describe('The ids that follow from an Idempotency-Key', () => {
  const id = (secret: string, caller: string | undefined, key: string, position = 0) =>
    new IdempotencyKey(secret, caller, key).imageId(position);

  it('are the same on every replica, and look like any other', () => {
    expect(id('secret', 'web', 'a-key')).toBe(id('secret', 'web', 'a-key'));
    expect(id('secret', 'web', 'a-key')).toMatch(/^[\da-f]{32}$/);
  });

  it('differ by secret, caller, key and place, however these are put together', () => {
    const ids = [
      id('secret', 'web', 'a-key'),
      id('other', 'web', 'a-key'),
      id('', 'web', 'a-key'),
      id('secret', 'app', 'a-key'),
      id('secret', undefined, 'a-key'),
      id('secret', 'null', 'a-key'),
      id('secret', 'anonymous', 'a-key'),
      id('secret', 'web', 'a-key', 1),
      id('secret', 'web', 'a-key1'),
      id('secret', 'weba', '-key'),
      id('secret', 'web', 'a-key",1,"'),
      id('secret', 'web', 'a-key,1'),
    ];
    expect(new Set(ids).size).toBe(ids.length);
  });

  it.each(['', ' ', 'a b', 'a\tb', 'é', 'x'.repeat(256), 'a\n'])('are refused for the key %j', (key) => {
    expect(() => new IdempotencyKey('secret', undefined, key)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});
