import {
  afterSoi,
  app1,
  beforeChunk,
  type ByteOrder,
  exif,
  join,
  photograph,
  pngChunk,
  riffChunk,
  riffChunks,
  segment,
  u16,
  u32,
  vp8x,
  webp,
} from '../test/fixtures.js';
import { random, verdict } from '../test/inspect.js';

const jpeg = await photograph().jpeg().toBuffer();
const png = await photograph().png().toBuffer();
const frame = riffChunks(await photograph().webp().toBuffer());

const withExif = {
  'image/jpeg': (tiff: Buffer) => afterSoi(jpeg, app1(tiff)),
  'image/png': (tiff: Buffer) => beforeChunk(png, 'IDAT', pngChunk('eXIf', tiff)),
  'image/webp': (tiff: Buffer) => webp(vp8x(0x08, 61, 40), ...frame, riffChunk('EXIF', tiff)),
};
const formats = Object.entries(withExif);
const orders: ByteOrder[] = ['II', 'MM'];

describe.each(formats)('EXIF in %s', (type, make) => {
  it.each(orders)('lays the image on its side for orientations 5 to 8, in byte order %s', (order) => {
    const shown = [1, 2, 3, 4, 5, 6, 7, 8].map((orientation) => verdict(make(exif(orientation, order))));
    const [upright, turned] = [`${type} 61 × 40`, `${type} 40 × 61`];
    expect(shown).toEqual([upright, upright, upright, upright, turned, turned, turned, turned]);
  });

  it('never refuses the image, whatever is wrong with it', () => {
    const broken = {
      'no orientation there is': exif(9),
      'orientation 0': exif(0),
      nothing: Buffer.alloc(0),
      'one byte': Buffer.from('M'),
      'a prefix and a byte order': Buffer.from('Exif\0\0MM'),
      'a header cut off': exif(6).subarray(0, 7),
      'a directory cut off': exif(6).subarray(0, 20),
      'an entry cut off before its value': exif(6).subarray(0, 29),
      'no byte order': join('XX', exif(6).subarray(2)),
      'no magic': join('MM', u16(43), exif(6).subarray(4)),
      'a directory at 0': join('MM', u16(42), u32(0), exif(6).subarray(8)),
      'a directory at the last byte': join('MM', u16(42), u32(exif(6).length - 1), exif(6).subarray(8)),
      'a directory at 2^32 - 1': join('MM', u16(42), u32(0xffffffff), exif(6).subarray(8)),
      'the orientation as text': join(exif(6).subarray(0, 24), u16(2), exif(6).subarray(26)),
    };
    for (const [name, tiff] of Object.entries(broken)) {
      expect([name, verdict(make(tiff), { chunkBytes: () => 5 })]).toEqual([name, `${type} 61 × 40`]);
    }
  });

  it('is followed to a directory further on', () => {
    const [header, directory] = [join('MM', u16(42), u32(100), Buffer.alloc(92, 0xff)), exif(6).subarray(8)];
    expect(verdict(make(join(header, directory)), { chunkBytes: () => 7 })).toBe(`${type} 40 × 61`);
  });

  it('is read up to its own end only, when it claims more entries', () => {
    const tiff = exif(3);
    tiff.writeUInt16BE(0xffff, 8);
    expect(verdict(make(tiff))).toBe(`${type} 61 × 40`);
    const lacking = join('MM', u16(42), u32(8), u16(0xffff), Buffer.alloc(12 * 3));
    expect(verdict(make(lacking))).toBe(`${type} 61 × 40`);
  });

  it('never refuses the image, whatever bytes it is made of', () => {
    const upTo = random(112);
    for (let round = 0; round < 2000; round++) {
      const tiff = exif(1 + upTo(8), orders[upTo(2)]);
      for (let changes = upTo(5); changes > 0; changes--) tiff[upTo(tiff.length)] = upTo(256);
      expect([`${type} 61 × 40`, `${type} 40 × 61`]).toContain(verdict(make(tiff)));
    }
  });
});

describe('EXIF in JPEG', () => {
  it('counts when it is the first that says something, before the pixels', () => {
    const [sixth, first] = [app1(exif(6)), app1(exif(1))];
    expect(verdict(afterSoi(jpeg, sixth, first))).toBe('image/jpeg 40 × 61');
    expect(verdict(afterSoi(jpeg, first, sixth))).toBe('image/jpeg 61 × 40');
    expect(verdict(afterSoi(jpeg, app1(exif(0)), sixth))).toBe('image/jpeg 40 × 61');
    expect(verdict(join(jpeg.subarray(0, -2), sixth, jpeg.subarray(-2)))).toBe('image/jpeg 61 × 40');
  });

  it('is not looked for in other segments', () => {
    expect(verdict(afterSoi(jpeg, segment(0xe2, join('Exif\0\0', exif(6)))))).toBe('image/jpeg 61 × 40');
  });
});
