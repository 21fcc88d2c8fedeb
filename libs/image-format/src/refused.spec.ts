import {
  afterSoi,
  app1,
  beforeChunk,
  beforeEoi,
  box,
  clap,
  exif,
  flip,
  fullBox,
  heif,
  irot,
  ispe,
  join,
  photograph,
  pngChunk,
  riffChunk,
  riffChunks,
  segment,
  u16,
  u32,
  u64,
  u8,
  vp8x,
  webp,
} from '../test/fixtures.js';
import { inspect, inspector, verdict, type InspectOptions } from '../test/inspect.js';
import { IMAGE_TYPES, ImageError, type ImageType } from './index.js';

const jpeg = await photograph().jpeg().toBuffer();
const png = await photograph().png().toBuffer();
const gif = await photograph().gif().toBuffer();
const lossy = await photograph().webp().toBuffer();
const lossless = await photograph().webp({ lossless: true }).toBuffer();

const sof = jpeg.indexOf(u8(0xff, 0xc0));
const ihdr = (width: number, height: number) =>
  join(
    png.subarray(0, 8),
    pngChunk('IHDR', join(u32(width), u32(height), u8(8, 2, 0, 0, 0))),
    png.subarray(8 + 25),
  );
function write(bytes: Buffer, at: number, value: Buffer): Buffer {
  const written = Buffer.from(bytes);
  value.copy(written, at);
  return written;
}

function refusal(bytes: Uint8Array, options?: InspectOptions): ImageError {
  try {
    inspect(bytes, options);
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
  throw new Error('It was accepted.');
}

describe('what is not an image', () => {
  it.each([
    ['nothing', ''],
    ['one byte', '\xff'],
    ['text', 'Dear sir or madam,\n'],
    ['a PDF', '%PDF-1.7\n%\xe2\xe3\xcf\xd3\n'],
    ['HTML', '<!doctype html><img src=x>'],
    ['an SVG', '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'],
    ['a zip', 'PK\x03\x04\x14\0\0\0\x08\0'],
    ['a BMP', 'BM\x8a\0\0\0\0\0\0\0\x8a\0\0\0'],
    ['a TIFF', 'II*\0\x08\0\0\0\0\0'],
    ['a JPEG 2000', '\0\0\0\x0cjP  \r\n\x87\n'],
    ['an MP4', box('ftyp', 'isom', u32(0x200), 'isomiso2avc1mp41').toString('latin1')],
    ['an MP4 with a version like a brand', box('ftyp', 'isom', 'avif', 'isom').toString('latin1')],
    ['a box file without brands', '\0\0\0\x08ftypavif\0\0\0\0'],
    ['a WAV', 'RIFF\x24\0\0\0WAVEfmt '],
    ['a GIF of no known version', 'GIF90a\x01\0\x01\0\0\0\0;'],
    ['a PNG whose line ends were changed', '\x89PNG\n\x1a\n\0\0\0\rIHDR'],
    ['a JPEG without a marker after SOI', '\xff\xd8\0\0\0\0'],
    ['half a signature', '\x89PNG\r'],
  ])('is refused by its bytes: %s', (_, text) => {
    const { code, message } = refusal(Buffer.from(text, 'latin1'));
    expect(code).toBe('UNSUPPORTED_IMAGE');
    expect(message).toMatch(/^(This is not an image of a kind known here|The file is empty)/);
  });

  it('is refused as soon as its first bytes tell', () => {
    expect(() => {
      inspector().push(Buffer.from('%PDF-1.7'));
    }).toThrow(ImageError);
  });

  it('is told when it is empty', () => {
    expect(refusal(Buffer.alloc(0)).message).toMatch(/^The file is empty. Send image\/jpeg, /);
    expect(refusal(Buffer.from('a')).message).toContain('not an image');
  });

  it('is told what to send, and none of its own bytes', () => {
    const { message } = refusal(Buffer.from('<script>alert(1)</script>'), {
      allowedTypes: ['image/jpeg', 'image/png'],
    });
    expect(message).toContain('Send image/jpeg or image/png.');
    expect(message).not.toContain('script');
  });
});

describe('an image of a type that is not allowed', () => {
  const images: [ImageType, Buffer][] = [
    ['image/jpeg', jpeg],
    ['image/png', png],
    ['image/gif', gif],
    ['image/webp', lossy],
    ['image/avif', heif()],
    ['image/heic', heif({ brands: ['heic', 'mif1'] })],
    ['image/heif', heif({ brands: ['mif1'] })],
  ];
  it.each(images)('is refused with a word about ALLOWED_TYPES: %s', (type, bytes) => {
    const others = IMAGE_TYPES.filter((other) => other !== type);
    const { code, message } = refusal(bytes, { allowedTypes: others });
    expect(code).toBe('UNSUPPORTED_IMAGE');
    expect(message).toContain(`have ALLOWED_TYPES of this service name ${type}`);
    expect(verdict(bytes, { allowedTypes: [type] })).toContain(type);
  });
});

describe('an image that claims too many pixels', () => {
  it.each([
    ['a PNG of 100,000 × 100,000', ihdr(100_000, 100_000)],
    ['a PNG of 2^31 - 1 squared', ihdr(0x7fffffff, 0x7fffffff)],
    ['a JPEG', write(jpeg, sof + 5, join(u16(65_535), u16(65_535)))],
    [
      'a JPEG that tells so after its first scan',
      beforeEoi(write(jpeg, sof + 5, join(u16(0), u16(65_535))), segment(0xdc, u16(65_535))),
    ],
    ['a GIF', write(gif, 6, u8(255, 255, 255, 255))],
    [
      'a GIF with a frame larger than itself',
      write(gif, gif.indexOf(u8(0x2c, 0, 0, 0, 0)) + 5, u8(255, 255, 255, 255)),
    ],
    ['a lossy WebP', write(lossy, 26, u8(0xff, 0x3f, 0xff, 0x3f))],
    ['a lossless WebP', write(lossless, 21, u8(0xff, 0xff, 0xff, 0x0f))],
    ['an extended WebP', webp(vp8x(0, 16_384, 16_384), ...riffChunks(lossy))],
    [
      'an extended WebP with a frame larger than itself',
      webp(vp8x(0, 61, 40), ...riffChunks(write(lossy, 26, u8(0xff, 0x3f, 0xff, 0x3f)))),
    ],
    ['an AVIF', heif({ properties: [ispe(20_000, 20_000)] })],
    [
      'an AVIF that shows little of them',
      heif({ properties: [ispe(20_000, 20_000), clap(1, 1)], items: { 1: [1, 2] } }),
    ],
  ])('is refused: %s', (_, bytes) => {
    const { code, message } = refusal(bytes);
    expect(code).toBe('TOO_MANY_PIXELS');
    expect(message).toContain('at most 100000000 pixels');
  });

  it.each([
    ['a PNG', ihdr(100_000, 100_000).subarray(0, 24)],
    ['a JPEG', write(jpeg, sof + 5, join(u16(65_535), u16(65_535))).subarray(0, sof + 10)],
    ['a WebP', webp(vp8x(0, 16_384, 16_384)).subarray(0, 30)],
  ])('is refused before its pixels come: %s', (_, header) => {
    expect(() => {
      inspector().push(header);
    }).toThrow('pixels (width times height) are accepted');
  });

  it('is accepted up to the very limit', () => {
    expect(verdict(png, { maxPixels: 61 * 40 })).toBe('image/png 61 × 40');
    expect(verdict(png, { maxPixels: 61 * 40 - 1 })).toBe('TOO_MANY_PIXELS');
  });
});

describe('an image that is damaged', () => {
  const sos = jpeg.indexOf(u8(0xff, 0xda));
  const idat = png.indexOf('IDAT') - 4;
  const thumbnailed = afterSoi(jpeg, app1(exif(1, 'MM', jpeg)));
  const manyProperties = Array.from({ length: 5000 }, () => irot(0));
  const manyItems = Object.fromEntries(Array.from({ length: 9000 }, (_, id) => [id + 1, [1]]));
  const hundredItems = fullBox('ipma', 0, 0, u32(100), Buffer.alloc(400, u8(0, 1, 1, 1)));
  const meta = (...boxes: Buffer[]) =>
    join(box('ftyp', 'avif', u32(0), 'avif'), fullBox('meta', 0, 0, ...boxes), box('mdat', Buffer.alloc(64)));
  const iprp = (...ipco: Buffer[]) =>
    box('iprp', box('ipco', ...ipco), fullBox('ipma', 0, 0, u32(1), u16(1), u8(1, 1)));
  const pitm = fullBox('pitm', 0, 0, u16(1));
  const iloc = (item: Buffer) => fullBox('iloc', 0, 0, u8(0x44, 0), u16(1), item);
  const extent = (file: number, offset: number, length: number) =>
    join(u16(1), u16(file), u16(1), u32(offset), u32(length));
  const whole = iloc(extent(0, 100, 16));
  const long = (construction: number, offset: number, length: number) =>
    fullBox(
      'iloc',
      1,
      0,
      u8(0x88, 0x88),
      u16(1),
      join(u16(1), u16(construction), u16(0), u64(50), u16(1), u64(9_999_999), u64(offset), u64(length)),
    );
  const reserved = long(0xfff0, 0, 5000);

  it.each([
    ['a JPEG of no width', write(jpeg, sof + 7, u16(0))],
    ['a JPEG that never tells its height', write(jpeg, sof + 5, u16(0))],
    [
      'a JPEG that tells no height after its first scan',
      beforeEoi(write(jpeg, sof + 5, u16(0)), segment(0xdc, u16(0))),
    ],
    ['a JPEG with a line count of one byte', beforeEoi(write(jpeg, sof + 5, u16(0)), segment(0xdc, '\x28'))],
    ['a JPEG cut in half', jpeg.subarray(0, jpeg.length / 2)],
    ['a JPEG whose only EOI is its thumbnail’s', thumbnailed.subarray(0, -2)],
    [
      'a JPEG with another begun in its middle',
      join(jpeg.subarray(0, -400), jpeg, Buffer.alloc(70_000), jpeg.subarray(-2)),
    ],
    ['a JPEG of two frames', afterSoi(jpeg, jpeg.subarray(sof, sof + 19))],
    ['a JPEG without a frame', join(jpeg.subarray(0, sof), jpeg.subarray(sof + 19))],
    ['a JPEG without data', join(jpeg.subarray(0, sos), u8(0xff, 0xd9))],
    ['a JPEG with a segment of length 1', afterSoi(jpeg, u8(0xff, 0xe0, 0, 1))],
    [
      'a JPEG with a frame header of 3 bytes',
      join(jpeg.subarray(0, sof), segment(0xc0, '\x08\0\x28'), jpeg.subarray(sof + 19)),
    ],
    ['a PNG of no width', ihdr(0, 40)],
    ['a PNG of no height', ihdr(61, 0)],
    ['a PNG without a header', join(png.subarray(0, 8), png.subarray(idat))],
    ['a PNG of two headers', beforeChunk(png, 'IDAT', png.subarray(8, 33))],
    ['a PNG without data', join(png.subarray(0, idat), pngChunk('IEND', Buffer.alloc(0)))],
    ['a PNG with a chunk of more than 2^31 bytes', beforeChunk(png, 'IDAT', join(u32(0x80000000), 'tEXt'))],
    [
      'a PNG with a chunk of no possible name',
      beforeChunk(png, 'IDAT', join(u32(0), '\0\x01\x02\x03', u32(0))),
    ],
    ['a GIF of no width', write(gif, 6, u8(0, 0))],
    ['a GIF without a frame', join(gif.subarray(0, 10), u8(0, 0, 0, 0x3b))],
    ['a GIF with a block of no known kind', join(gif.subarray(0, -1), u8(0x99), gif.subarray(-1))],
    ['a WebP whose RIFF is shorter than its chunk', write(lossy, 4, flip(u32(lossy.length - 8 - 40)))],
    ['a WebP whose RIFF is longer than its file', write(lossy, 4, flip(u32(lossy.length)))],
    ['a WebP without a frame', webp(vp8x(0, 61, 40))],
    ['a WebP with nothing at all', webp()],
    ['a WebP with a header of 4 bytes', webp(riffChunk('VP8X', Buffer.alloc(4)), ...riffChunks(lossy))],
    ['a WebP of no width', write(lossy, 26, u8(0, 0))],
    ['a WebP that begins between key frames', write(lossy, 23, u8(0, 0, 0))],
    ['a lossless WebP with the wrong signature', write(lossless, 20, u8(0x2e))],
    ['an AVIF of no width', heif({ properties: [ispe(0, 30)] })],
    ['an AVIF with an item past its end', heif({ overreach: 1 })],
    [
      'an AVIF with an item past its end, and bits set that mean nothing yet',
      meta(pitm, iprp(ispe(4, 3)), reserved),
    ],
    ['an AVIF with an item that begins past its end', meta(pitm, iprp(ispe(4, 3)), iloc(extent(0, 5000, 0)))],
    ['an AVIF with an item past its end, after which meta comes', heif({ overreach: 1000, metaLast: true })],
    ['an AVIF with an item past its idat', heif({ ilocVersion: 1, construction: 1, overreach: 1 })],
    ['an AVIF whose primary item has no size', heif({ items: { 1: [], 2: [1] } })],
    ['an AVIF whose primary item is not there', heif({ primary: 7 })],
    ['an AVIF that does not say where its pixels are', meta(pitm, iprp(ispe(4, 3)))],
    ['an AVIF without a size', meta(pitm, whole, iprp())],
    [
      'an AVIF with a box that reaches past its parent',
      meta(pitm, whole, iprp(write(ispe(4, 3), 0, u32(200)))),
    ],
    ['an AVIF with a box shorter than what it holds', meta(pitm, whole, iprp(write(ispe(4, 3), 0, u32(10))))],
    [
      'an AVIF with lengths of 3 bytes',
      meta(pitm, iprp(ispe(4, 3)), fullBox('iloc', 0, 0, u8(0x33, 0), u16(1), Buffer.alloc(20))),
    ],
    ['an AVIF with 5,000 properties', heif({ properties: [ispe(4, 3), ...manyProperties] })],
    ['an AVIF with 9,000 items', heif({ items: manyItems })],
    [
      'an AVIF with 9,000 items in tables of 100',
      meta(
        pitm,
        whole,
        box('iprp', box('ipco', ispe(4, 3)), ...Array.from({ length: 90 }, () => hundredItems)),
      ),
    ],
    ['an AVIF of nothing but its type', box('ftyp', 'avif', u32(0), 'avif')],
    ['an AVIF without pixels', join(box('ftyp', 'avis', u32(0), 'avis'), box('moov', Buffer.alloc(0)))],
  ])('is refused: %s', (_, bytes) => {
    expect(verdict(bytes)).toBe('CORRUPT_IMAGE');
    expect(verdict(bytes, { chunkBytes: () => 1 })).toBe('CORRUPT_IMAGE');
  });

  it.each([
    ['as they were before', meta(pitm, whole, iprp(ispe(4, 3)))],
    ['with padding in a box', meta(pitm, whole, iprp(ispe(4, 3), Buffer.alloc(7)))],
    ['with lengths of 8 bytes', meta(pitm, long(0, 50, 16), iprp(ispe(4, 3)))],
    ['with pixels in another file', meta(pitm, iloc(extent(1, 5000, 16)), iprp(ispe(4, 3)))],
    [
      'with another meta after the first',
      join(meta(pitm, whole, iprp(ispe(4, 3))), meta(pitm, whole, iprp(ispe(9, 9)))),
    ],
    [
      'with a list of brands of no whole number',
      join(box('ftyp', 'avif', u32(0), 'avif', '..'), meta(pitm, whole, iprp(ispe(4, 3))).subarray(20)),
    ],
  ])('accepts boxes like the broken ones: %s', (_, bytes) => {
    expect(verdict(bytes)).toBe('image/avif 4 × 3');
    expect(verdict(bytes, { chunkBytes: () => 1 })).toBe('image/avif 4 × 3');
  });

  it('is told that its pixels are not there', () => {
    const pixelless = [
      join(jpeg.subarray(0, sos), u8(0xff, 0xd9)),
      join(png.subarray(0, idat), pngChunk('IEND', Buffer.alloc(0))),
    ];
    for (const bytes of pixelless) expect(refusal(bytes).message).toMatch(/ends before its \w+ data begins/);
  });

  it('is told how far it got and how to mend it', () => {
    expect(refusal(jpeg.subarray(0, 500)).message).toBe(
      'The image is cut off: it ends after 500 bytes, before it is complete. Send the whole file.',
    );
  });
});

describe('an image made to waste time or memory', () => {
  const flood = (start: Buffer, unit: Buffer) => join(start, Buffer.alloc(8 << 20, unit));
  it.each([
    ['fill bytes', flood(jpeg.subarray(0, 20), u8(0xff))],
    ['stuffed zeros', flood(jpeg.subarray(0, -2), u8(0xff, 0))],
    ['empty segments', flood(jpeg.subarray(0, 2), u8(0xff, 0xe0, 0, 2))],
    ['EXIF after EXIF', flood(jpeg.subarray(0, 2), app1(Buffer.from('MM\0*\xff\xff\xff\xff', 'latin1')))],
    ['empty chunks', flood(png.subarray(0, 33), pngChunk('tEXt', Buffer.alloc(0)))],
    ['sub-blocks of one byte', flood(join(gif.subarray(0, 10), u8(0, 0, 0, 0x21, 0xfe)), u8(1))],
    ['empty extensions', flood(join(gif.subarray(0, 10), u8(0, 0, 0)), u8(0x21, 0xfe, 0))],
    [
      'items without bytes',
      flood(
        join(
          box('ftyp', 'avif', u32(0), 'avif'),
          u32(16 << 20),
          'meta',
          u32(0),
          u32(15 << 20),
          'iloc',
          u32(0),
          u16(0),
          u16(0xffff),
        ),
        u16(0xffff),
      ),
    ],
    ['empty boxes', flood(box('ftyp', 'avif', u32(0), 'avif'), box('free'))],
  ])('is done with in time that grows with its bytes alone: %s', (_, bytes) => {
    const started = performance.now();
    expect(verdict(bytes, { chunkBytes: () => 16_384 })).toBe('CORRUPT_IMAGE');
    // It takes a tenth of a second; what grows with the square takes minutes.
    expect(performance.now() - started).toBeLessThan(4000);
  });
});
