import sharp from 'sharp';
import {
  afterSoi,
  app1,
  beforeChunk,
  beforeEoi,
  box,
  clap,
  exif,
  file,
  type Fixture,
  fullBox,
  heif,
  type HeifOptions,
  imir,
  insert,
  irot,
  ispe,
  join,
  largeBox,
  lastBox,
  photograph,
  pngChunk,
  riffChunk,
  riffChunks,
  segment,
  u16,
  u32,
  u8,
  vp8x,
  webp,
} from './fixtures.js';

const [width, height] = [61, 40];

/** What cameras, phones and editors write, by what is special about it. */
export async function acceptedImages(): Promise<Record<string, Fixture>> {
  return {
    ...(await jpegs()),
    ...(await pngs()),
    ...(await gifs()),
    ...(await webps()),
    ...(await avifs()),
    ...heifs(),
  };
}

async function jpegs(): Promise<Record<string, Fixture>> {
  const baseline = await photograph().jpeg().toBuffer();
  const progressive = await photograph().jpeg({ progressive: true }).toBuffer();
  const thumbnail = await photograph(16, 16).jpeg().toBuffer();
  const jpeg = (bytes: Buffer, rest: Partial<Fixture> = {}): Fixture => ({
    bytes,
    type: 'image/jpeg',
    width,
    height,
    ...rest,
  });
  const trailing = (trailer: Buffer) => jpeg(join(baseline, trailer), { trailer: trailer.length });
  const turned = { width: height, height: width };

  const secondScan = progressive.indexOf(u8(0xff, 0xda), progressive.indexOf(u8(0xff, 0xda)) + 2);
  const betweenScans = (added: Buffer) =>
    join(progressive.subarray(0, secondScan), added, progressive.subarray(secondScan));

  const sof = baseline.indexOf(u8(0xff, 0xc0));
  const withoutHeight = Buffer.from(baseline);
  withoutHeight.writeUInt16BE(0, sof + 5);

  const data = baseline.indexOf(u8(0xff, 0xda)) + 14;
  const restarts = join(
    baseline.subarray(0, data),
    ...Array.from({ length: 16 }, (_, n) => join(u8(0x11, 0xff, 0x00, 0x22, 0xff, 0xd0 + (n % 8)))),
    u8(0xff, 0xd9),
  );

  return {
    'a baseline JPEG': jpeg(baseline),
    'a progressive JPEG, with tables between its scans': jpeg(progressive),
    'a CMYK JPEG': jpeg(await photograph().toColourspace('cmyk').jpeg().toBuffer()),
    'a gray JPEG': jpeg(await photograph().grayscale().jpeg().toBuffer()),
    'a JPEG with a JFIF comment, as it was published': jpeg(file('grace_hopper.jpg'), {
      width: 512,
      height: 600,
    }),
    'a JPEG with restart markers': { ...jpeg(restarts), undecodable: true },
    'a JPEG turned by big-endian EXIF': jpeg(afterSoi(baseline, app1(exif(6, 'MM'))), turned),
    'a JPEG turned by little-endian EXIF': jpeg(afterSoi(baseline, app1(exif(8, 'II'))), turned),
    'a JPEG with a thumbnail that has an SOF and EOI of its own': jpeg(
      afterSoi(baseline, app1(exif(6, 'II', thumbnail))),
      turned,
    ),
    'a JPEG with XMP before EXIF': jpeg(
      afterSoi(baseline, segment(0xe1, 'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>'), app1(exif(6))),
      turned,
    ),
    'a JPEG with markers among those of frames that are none': {
      ...jpeg(afterSoi(baseline, segment(0xcc, u8(0, 0x10, 0x10, 5, 9, 9)), segment(0xc8, 'reserved'))),
      undecodable: true,
    },
    'a JPEG with EXIF between its scans, where decoders do not look': jpeg(betweenScans(app1(exif(6)))),
    'a JPEG whose SOF lies beyond 2.6 MB of profile': jpeg(
      afterSoi(baseline, ...Array.from({ length: 40 }, () => segment(0xe2, Buffer.alloc(65_533, 0xd9)))),
    ),
    'a JPEG with fill bytes between its segments': jpeg(
      join(
        baseline.subarray(0, 2),
        u8(0xff, 0xff, 0xff),
        baseline.subarray(2, sof),
        u8(0xff),
        baseline.subarray(sof),
      ),
    ),
    'a JPEG with an EOI in a comment between its scans': jpeg(
      betweenScans(segment(0xfe, u8(0xff, 0xd9, 0xff, 0xd8))),
    ),
    'a JPEG with an EOI in a Huffman table between its scans': jpeg(
      betweenScans(segment(0xc4, join(u8(0x13, 0, 2), Buffer.alloc(14), u8(0xff, 0xd9)))),
    ),
    'a JPEG that tells its height after its first scan': {
      ...jpeg(beforeEoi(withoutHeight, segment(0xdc, u16(height)))),
      undecodable: true,
    },
    'a JPEG that does so and is turned': {
      ...jpeg(beforeEoi(afterSoi(withoutHeight, app1(exif(5))), segment(0xdc, u16(height))), turned),
      undecodable: true,
    },
    "a JPEG with a Samsung phone's trailer": trailing(
      join(u8(0, 0, 1, 0x0a), 'Image_UTC_Data1SEFHk', u32(107), 'SEFT'),
    ),
    'a motion photo': trailing(
      join(box('ftyp', 'mp42', u32(0), 'isommp42'), box('mdat', Buffer.alloc(600, 0xff))),
    ),
    'a multi-picture JPEG, with a second image after the first': trailing(thumbnail),
    'a JPEG padded with zeros': trailing(Buffer.alloc(100)),
  };
}

async function pngs(): Promise<Record<string, Fixture>> {
  const plain = await photograph(24, 18).png().toBuffer();
  const png = (bytes: Buffer, rest: Partial<Fixture> = {}): Fixture => ({
    bytes,
    type: 'image/png',
    width: 24,
    height: 18,
    ...rest,
  });
  const turned = { width: 18, height: 24 };
  const data = plain.subarray(plain.indexOf('IDAT') + 4, plain.indexOf('IEND') - 8);
  const frame = (sequence: number) =>
    pngChunk('fcTL', join(u32(sequence), u32(24), u32(18), u32(0), u32(0), u16(1), u16(10), u8(0, 0)));
  const animated = beforeChunk(
    beforeChunk(plain, 'IDAT', pngChunk('acTL', join(u32(2), u32(0))), frame(0)),
    'IEND',
    frame(1),
    pngChunk('fdAT', join(u32(2), data)),
  );
  return {
    'a PNG': png(plain),
    'an interlaced PNG': png(await photograph(24, 18).png({ progressive: true }).toBuffer()),
    'a 16-bit PNG': png(await photograph(24, 18).toColourspace('rgb16').png().toBuffer()),
    'a PNG with a palette': png(await photograph(24, 18).png({ palette: true }).toBuffer()),
    'an APNG': png(animated),
    'a PNG turned by EXIF': png(beforeChunk(plain, 'IDAT', pngChunk('eXIf', exif(6))), turned),
    'a PNG with EXIF after its pixels, where decoders do not look': png(
      beforeChunk(plain, 'IEND', pngChunk('eXIf', exif(6))),
    ),
    'a PNG with bytes after IEND': png(join(plain, 'left over from a larger one'), { trailer: 27 }),
  };
}

async function gifs(): Promise<Record<string, Fixture>> {
  const still = await photograph(24, 18).gif().toBuffer();
  const gif = (bytes: Buffer, rest: Partial<Fixture> = {}): Fixture => ({
    bytes,
    type: 'image/gif',
    width: 24,
    height: 18,
    ...rest,
  });
  const negative = await photograph(24, 18).negate().png().toBuffer();
  const animated = await sharp([await photograph(24, 18).png().toBuffer(), negative], {
    join: { animated: true },
  })
    .gif({ delay: [100, 100] })
    .toBuffer();
  // The smallest there is: one pixel, with and without what 89a added.
  const pixel = (version: string, ...extensions: Buffer[]) =>
    join(
      `GIF${version}`,
      u8(1, 0, 1, 0, 0x80, 0, 0),
      u8(0, 0, 0, 255, 255, 255),
      ...extensions,
      u8(0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0, 0x3b),
    );
  const one = { width: 1, height: 1 };
  const zip = join('PK\x03\x04', Buffer.alloc(40), 'PK\x05\x06', Buffer.alloc(18));
  return {
    'a GIF': gif(still),
    'an animated GIF': gif(animated),
    'a GIF of 1987': gif(pixel('87a'), one),
    'a GIF with a comment that holds a trailer': gif(pixel('89a', u8(0x21, 0xfe, 2, 0x3b, 0x3b, 0)), one),
    'a GIF with an empty block too many': {
      ...gif(insert(pixel('89a'), u8(0x2c), u8(0)), one),
      undecodable: true,
    },
    'a GIF with a zip after it': gif(join(still, zip), { trailer: zip.length }),
  };
}

async function webps(): Promise<Record<string, Fixture>> {
  const lossy = await photograph(33, 25).webp().toBuffer();
  const lossless = await photograph(33, 25).webp({ lossless: true }).toBuffer();
  const transparent = await photograph(33, 25).ensureAlpha(0.5).webp().toBuffer();
  const negative = await photograph(33, 25).negate().png().toBuffer();
  const animated = await sharp([await photograph(33, 25).png().toBuffer(), negative], {
    join: { animated: true },
  })
    .webp()
    .toBuffer();
  const image = (bytes: Buffer, rest: Partial<Fixture> = {}): Fixture => ({
    bytes,
    type: 'image/webp',
    width: 33,
    height: 25,
    ...rest,
  });
  const turned = { width: 25, height: 33 };
  const frame = riffChunks(lossy);
  const HAS_EXIF = 0x08;
  return {
    'a lossy WebP': image(lossy),
    'a lossless WebP': image(lossless),
    'a WebP with transparency': image(transparent),
    'an animated WebP': image(animated),
    'a WebP turned by EXIF after its pixels': image(
      webp(vp8x(HAS_EXIF, 33, 25), ...frame, riffChunk('EXIF', exif(6))),
      turned,
    ),
    'a WebP turned by EXIF with the prefix of JPEG': image(
      webp(vp8x(HAS_EXIF, 33, 25), ...frame, riffChunk('EXIF', join('Exif\0\0', exif(8, 'II')))),
      turned,
    ),
    'a WebP turned by the first of two EXIF chunks': image(
      webp(vp8x(HAS_EXIF, 33, 25), ...frame, riffChunk('EXIF', exif(6)), riffChunk('EXIF', exif(1))),
      turned,
    ),
    'a WebP with half a chunk header before its end': {
      ...image(webp(...frame, Buffer.from('half'))),
      undecodable: true,
    },
    'a WebP with EXIF it does not announce': {
      ...image(webp(vp8x(0, 33, 25), ...frame, riffChunk('EXIF', exif(6)))),
      undecodable: true,
    },
    'a WebP with a chunk of odd length': image(
      webp(vp8x(0, 33, 25), ...frame, riffChunk('XYZW', Buffer.from('odd'))),
    ),
    'a WebP with bytes after it': image(join(lossy, 'SEFT'), { trailer: 4 }),
  };
}

async function avifs(): Promise<Record<string, Fixture>> {
  const avif = (bytes: Buffer, rest: Partial<Fixture> = {}): Fixture => ({
    bytes,
    type: 'image/avif',
    width,
    height,
    ...rest,
  });
  const still = await photograph().avif({ effort: 0 }).toBuffer();
  return {
    'an AVIF': avif(still),
    'an AVIF with transparency': avif(await photograph().ensureAlpha(0.5).avif({ effort: 0 }).toBuffer()),
    'an AVIF turned by the encoder': avif(
      await photograph().withMetadata({ orientation: 6 }).avif({ effort: 0 }).toBuffer(),
      { width: height, height: width },
    ),
    'an AVIF with a line break after it': avif(join(still, '\r\n'), { trailer: 2 }),
    'an AVIF with bytes after it that no box is as short as': avif(join(still, u32(3), 'free', u8(1)), {
      trailer: 9,
    }),
    'an AVIF with bytes after it that no box is named': avif(join(still, u32(999), u8(0, 1, 2, 3, 4)), {
      trailer: 9,
    }),
  };
}

/** Boxes without pixels, so that every way the standards have of saying the same is there. */
function heifs(): Record<string, Fixture> {
  const made = (options: HeifOptions, rest: Partial<Fixture> = {}): Fixture => ({
    bytes: heif(options),
    type: 'image/avif',
    width: 40,
    height: 30,
    undecodable: true,
    ...rest,
  });
  const turned = { width: 30, height: 40 };
  const padding = Array.from({ length: 200 }, () => fullBox('pixi', 0, 0, u8(1, 8)));
  const tiles = { 1: [1], 2: [1], 3: [1], 4: [1], 5: [2] };

  const tkhd = (version: 0 | 1, matrix: number[], trackWidth: number, trackHeight: number) =>
    fullBox(
      'tkhd',
      version,
      7,
      Buffer.alloc(version === 0 ? 20 : 32),
      Buffer.alloc(16),
      ...matrix.map((value) => u32(value >>> 0)),
      u32(trackWidth << 16),
      u32(trackHeight << 16),
    );
  const upright = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000];
  const quarter = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000];
  const sequence = (brand: string, ...tracks: Buffer[]) =>
    join(
      box('ftyp', brand, u32(0), 'msf1', brand),
      box(
        'moov',
        fullBox('mvhd', 0, 0, Buffer.alloc(96)),
        box('free', tkhd(0, upright, 7, 7)),
        ...tracks.map((track) => box('trak', box('free', tkhd(0, upright, 7, 7).subarray(8)), track)),
      ),
      box('mdat', Buffer.alloc(16)),
    );

  return {
    'an AVIF image sequence with a still': made({ brands: ['avis', 'avif', 'mif1', 'msf1'] }),
    'an AVIF that puts mif1 first': made({ brands: ['mif1', 'avif', 'miaf'] }),
    'an AVIF turned left': made({ properties: [ispe(40, 30), irot(1)], items: { 1: [1, 2] } }, turned),
    'an AVIF turned upside down': made({ properties: [ispe(40, 30), irot(2)], items: { 1: [1, 2] } }),
    'an AVIF turned right and mirrored': made(
      { properties: [ispe(40, 30), irot(3), imir(1)], items: { 1: [1, 2, 3] } },
      turned,
    ),
    'an AVIF mirrored': made({ properties: [ispe(40, 30), imir(0)], items: { 1: [1, 2] } }),
    'an AVIF cropped': made(
      { properties: [ispe(40, 30), clap(20, 10)], items: { 1: [1, 2] } },
      { width: 20, height: 10 },
    ),
    'an AVIF cropped, then turned': made(
      { properties: [irot(1), clap(20, 10), ispe(40, 30)], items: { 1: [3, 2, 1] } },
      { width: 10, height: 20 },
    ),
    'an AVIF with crops that make no sense': made({
      properties: [ispe(40, 30), clap(0, 20), clap(20, 0)],
      items: { 1: [1, 2, 3] },
    }),
    'a grid of tiles, whose size is its own': made({
      properties: [ispe(10, 10), ispe(40, 30)],
      items: tiles,
      primary: 5,
    }),
    'a primary item before its thumbnail': made({
      properties: [ispe(4, 3), ispe(40, 30)],
      items: { 1: [2], 2: [1] },
    }),
    'long item ids': made({
      items: { 70_000: [1] },
      primary: 70_000,
      pitmVersion: 1,
      ipmaVersion: 1,
      ipmaFlags: 2,
      ilocVersion: 2,
    }),
    'property numbers of 15 bits': made({
      properties: [...padding, ispe(40, 30)],
      items: { 1: [201] },
      ipmaFlags: 3,
    }),
    'items inside idat': made({ ilocVersion: 1, construction: 1 }),
    'meta after mdat': made({ metaLast: true }),
    'mdat with a 64-bit length': made({ mdat: largeBox }),
    'meta with a 64-bit length': made({ meta: largeBox }),
    'mdat without a length, which reaches to the end': made({ mdat: lastBox }),
    'meta without a length, which reaches to the end': made({ meta: lastBox, metaLast: true }),
    'an AVIF sequence of tracks only': {
      ...made({}),
      bytes: sequence('avis', tkhd(0, upright, 0, 0), tkhd(0, upright, 40, 0), tkhd(0, upright, 40, 30)),
    },
    'a HEIC sequence of tracks only, turned': {
      ...made({}),
      ...turned,
      bytes: sequence('hevc', tkhd(1, quarter, 40, 30)),
      type: 'image/heic',
    },
    'a HEIC of an encoder': { bytes: file('libheif.heic'), type: 'image/heic', width: 120, height: 80 },
    'a HEIC of odd size, derived from a larger one': {
      bytes: file('libheif-odd.heic'),
      type: 'image/heic',
      width: 121,
      height: 81,
    },
    ...Object.fromEntries(
      ['heic', 'heix', 'heim', 'heis', 'hevc'].map((brand) => [
        `an image of brand ${brand}, turned`,
        made(
          { brands: [brand, 'mif1'], properties: [ispe(40, 30), irot(3)], items: { 1: [1, 2] } },
          { type: 'image/heic', ...turned },
        ),
      ]),
    ),
    'a HEIC that AVIF readers may read as well': made(
      { brands: ['heic', 'mif1', 'avif'] },
      { type: 'image/heic' },
    ),
    'a HEIC that puts mif1 first': made({ brands: ['mif1', 'heic'] }, { type: 'image/heic' }),
    'a HEIF of another codec': made({ brands: ['vvic', 'mif1', 'miaf'] }, { type: 'image/heif' }),
    'a HEIF sequence of another codec': made({ brands: ['msf1', 'iso8'] }, { type: 'image/heif' }),
  };
}
