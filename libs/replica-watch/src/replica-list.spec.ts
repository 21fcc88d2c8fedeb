import { formatReplica, parseReplicas, whoServes } from './replica-list.js';
import { type Status } from './watched-replica.js';

describe('who serves', () => {
  const known = (...replicas: [entry: string, status: Status][]) =>
    replicas.map(([entry, status]) => ({ entry, status, answeredAt: 0 }));

  it.each<[string, Status[], string]>([
    [
      'those that are ready, and nobody else',
      ['ready', 'unready', 'hung', 'draining', 'gone', 'ready'],
      'af',
    ],
    ['where none is ready, those that say so', ['gone', 'unready', 'draining', 'hung', 'new'], 'b'],
    ['where none of them answers, those that hang', ['gone', 'draining', 'hung', 'new'], 'c'],
    ['where none stays, those that drain', ['gone', 'draining', 'new', 'draining'], 'bd'],
    ['where none is left, all that are known', ['gone', 'new'], 'ab'],
  ])('%s', (_, statuses, expected) => {
    const replicas = statuses.map((status, index) => ({
      entry: 'abcdef'.charAt(index),
      status,
      answeredAt: 0,
    }));
    expect(whoServes(replicas).join('')).toBe(expected);
  });

  it('where all hang, those that answered lately: one that is merely busy is not joined by one long gone', () => {
    const hung = (entry: string, answeredAt: number) => ({ entry, status: 'hung' as const, answeredAt });
    expect(whoServes([hung('a', 1_000), hung('b', 21_000), hung('c', 29_000)])).toEqual(['b', 'c']);
    expect(whoServes([hung('a', -Infinity), hung('b', -Infinity)])).toEqual(['a', 'b']);
  });

  it('keeps a spare one that is ready as a spare, and takes it in full where it is all there is', () => {
    expect(whoServes(known(['a:1', 'ready'], ['b:1 weight=2 backup', 'ready']))).toEqual([
      'a:1',
      'b:1 weight=2 backup',
    ]);
    expect(whoServes(known(['a:1', 'hung'], ['b:1 backup max_conns=9', 'ready']))).toEqual([
      'b:1 max_conns=9',
    ]);
  });
});

describe('a list of replicas', () => {
  it('has names with dots, addresses of both kinds, and options', () => {
    expect(
      parseReplicas(' api:3000 resolve,10.0.0.1:80  weight=2,\n[fd00::1]:3000,a-1.b.example:1,'),
    ).toEqual([
      { host: 'api', port: 3000, options: ['resolve'] },
      { host: '10.0.0.1', port: 80, options: ['weight=2'] },
      { host: 'fd00::1', port: 3000, options: [] },
      { host: 'a-1.b.example', port: 1, options: [] },
    ]);
  });

  it('leaves out who is marked down', () => {
    expect(parseReplicas('a:1 down, b:1')).toEqual([{ host: 'b', port: 1, options: [] }]);
  });

  it.each(['api', 'api:x', 'http://api:3000', '[::1:3000', '-a:1', 'a:1; b:1'])(
    'refuses %j by name',
    (item) => {
      expect(() => parseReplicas(`b:1, ${item}`)).toThrow(`"${item}" is no replica`);
    },
  );

  it('is written as nginx reads it, with addresses in place of names', () => {
    const [first, second] = parseReplicas('api:3000 resolve weight=2, [fd00::1]:3000');
    expect(formatReplica(first!, '10.0.0.9')).toBe('10.0.0.9:3000 weight=2');
    expect(formatReplica(second!, 'fd00::1')).toBe('[fd00::1]:3000');
  });
});
