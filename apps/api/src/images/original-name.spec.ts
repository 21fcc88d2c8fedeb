import { toOriginalName } from './original-name.js';

const family = '👨‍👩‍👧‍👦';
const bytes = (text: string) => Buffer.byteLength(text);

describe('toOriginalName', () => {
  it.each([
    ['Korean as it is', '제주도 바다.jpg', '제주도 바다.jpg'],
    ['Korean as macOS sends it, composed', '제주도.jpg'.normalize('NFD'), '제주도.jpg'],
    ['accents composed', 'cafe\u0301.png', 'café.png'],
    ['emoji of several code points', `${family}🏳️‍🌈.jpg`, `${family}🏳️‍🌈.jpg`],
    ['quotes, percent signs and semicolons', `50% "a"; b='c'.jpg`, `50% "a"; b='c'.jpg`],
    ['spaces within and at the ends', ' a  b .jpg', ' a  b .jpg'],
    ['line breaks', 'a\r\nb.jpg', 'a\r\nb.jpg'],
    ['a name that begins with a dot', '.jpg', '.jpg'],
    ['dots within', 'a..b...jpg', 'a..b...jpg'],
    ['three dots', '...', '...'],
  ])('keeps %s', (_what, sent, name) => {
    expect(toOriginalName(sent)).toBe(name);
  });

  it.each([
    ['../../etc/passwd', 'passwd'],
    ['../../x.jpg', 'x.jpg'],
    ['/etc/x.jpg', 'x.jpg'],
    ['photos/2026/x.jpg', 'x.jpg'],
    ['C:\\fakepath\\x.jpg', 'x.jpg'],
    ['..\\..\\x.jpg', 'x.jpg'],
    ['\\\\server\\share\\x.jpg', 'x.jpg'],
    ['mixed/..\\x.jpg', 'x.jpg'],
    ['x.jpg/', 'x.jpg'],
    ['x.jpg/..', 'x.jpg'],
  ])('drops the folders of %s', (sent, name) => {
    expect(toOriginalName(sent)).toBe(name);
  });

  it.each(['', '.', '..', '/', '\\', '../..', './', '..\\'])(
    'calls it "image" when %j leaves no name',
    (sent) => {
      expect(toOriginalName(sent)).toBe('image');
    },
  );

  it('replaces lone surrogates, which no UTF-8 can hold', () => {
    expect(toOriginalName('a\ud83d.jpg')).toBe('a\ufffd.jpg');
    expect(toOriginalName('\udc00\ud800')).toBe('\ufffd\ufffd');
  });

  it.each([
    ['ASCII', 'x'],
    ['Korean', '한'],
    ['decomposed Korean', '한'.normalize('NFD')],
    ['emoji', '😀'],
    ['families', family],
    ['flags', '🇰🇷'],
    ['Hindi', 'क्षि'],
    ['quotes', '"'],
  ])(
    'shortens 10 kB of %s to 255 bytes at most, before the extension and between characters',
    (_what, character) => {
      const name = toOriginalName(`${character.repeat(Math.ceil(10_000 / bytes(character)))}.jpeg`);
      const kept = character.normalize('NFC');
      const times = Math.floor((255 - '.jpeg'.length) / bytes(kept));
      expect(name).toBe(`${kept.repeat(times)}.jpeg`);
      expect(bytes(name)).toBeLessThanOrEqual(255);
    },
  );

  it('leaves a name of exactly 255 bytes alone, and shortens one of 256', () => {
    expect(toOriginalName(`${'x'.repeat(251)}.jpg`)).toBe(`${'x'.repeat(251)}.jpg`);
    expect(toOriginalName(`${'x'.repeat(252)}.jpg`)).toBe(`${'x'.repeat(251)}.jpg`);
  });

  it('shortens what only looks like an extension as it shortens the rest', () => {
    expect(toOriginalName(`a.${'x'.repeat(500)}`)).toBe(`a.${'x'.repeat(253)}`);
    expect(toOriginalName(`${'x'.repeat(300)}.한글`)).toBe('x'.repeat(255));
  });

  it('calls it "image" when its only character is longer than all of a name may be', () => {
    const zalgo = `z${'\u0328'.repeat(500)}`;
    expect(toOriginalName(zalgo)).toBe('image');
    expect(toOriginalName(`${zalgo}.jpg`)).toBe('image.jpg');
  });
});
