import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import sharp, { type Sharp } from 'sharp';

/** An image that has to be accepted. */
export interface Fixture {
  readonly bytes: Buffer;
  readonly type: string;
  /** As shown. */
  readonly width: number;
  readonly height: number;
  /** Bytes after the image's end, which may be cut off without harm. */
  readonly trailer?: number;
  /** The decoder at hand cannot read it, or its pixels are not there. */
  readonly undecodable?: boolean;
}

export const file = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url));

/** Grace Hopper's portrait, made small so that every offset of it can be tried. */
export const photograph = (width = 61, height = 40): Sharp =>
  sharp(file('grace_hopper.jpg')).resize(width, height, { fit: 'fill' });

export const u8 = (...values: number[]) => Buffer.from(values);
export const u16 = (value: number) => u8(value >> 8, value & 0xff);
export const u32 = (value: number) => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)]);
export const u64 = (value: number) => Buffer.concat([u32(Math.floor(value / 2 ** 32)), u32(value % 2 ** 32)]);
export const flip = (bytes: Buffer) => Buffer.from(bytes).reverse();
export const join = (...parts: (Buffer | string)[]) =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)));

/** Puts bytes in front of the first occurrence of a mark. */
export function insert(bytes: Buffer, mark: Buffer | string, added: Buffer, skipped = 0): Buffer {
  const at = bytes.indexOf(mark, 0, 'latin1');
  if (at < 0) throw new Error('The fixture has no such mark.');
  return join(bytes.subarray(0, at + skipped), added, bytes.subarray(at + skipped));
}

export type ByteOrder = 'II' | 'MM';

/** A TIFF block with a maker's name, an orientation, and a second directory that holds a thumbnail. */
export function exif(orientation: number, order: ByteOrder = 'MM', thumbnail = Buffer.alloc(0)): Buffer {
  const write = (bytes: Buffer) => (order === 'II' ? flip(bytes) : bytes);
  const entry = (tag: number, type: number, count: number, value: Buffer) =>
    join(write(u16(tag)), write(u16(type)), write(u32(count)), value, Buffer.alloc(4 - value.length));
  const first = join(
    write(u16(2)),
    entry(0x010f, 2, 4, Buffer.from('Cam\0')),
    entry(0x0112, 3, 1, write(u16(orientation))),
    write(u32(8 + 30)),
  );
  const second = join(
    write(u16(2)),
    entry(0x0201, 4, 1, write(u32(8 + 60))),
    entry(0x0202, 4, 1, write(u32(thumbnail.length))),
    write(u32(0)),
  );
  return join(order, write(u16(42)), write(u32(8)), first, second, thumbnail);
}

// JPEG

export const segment = (marker: number, payload: Buffer | string) =>
  join(u8(0xff, marker), u16(payload.length + 2), payload);

export const app1 = (tiff: Buffer) => segment(0xe1, join('Exif\0\0', tiff));

/** Puts segments right after a JPEG's SOI. */
export const afterSoi = (jpeg: Buffer, ...segments: Buffer[]) =>
  join(jpeg.subarray(0, 2), ...segments, jpeg.subarray(2));

/** As long as nothing but the last scan holds FF D9. */
export const beforeEoi = (jpeg: Buffer, added: Buffer) =>
  join(jpeg.subarray(0, -2), added, jpeg.subarray(-2));

// PNG

export const pngChunk = (type: string, data: Buffer) =>
  join(u32(data.length), type, data, u32(crc32(join(type, data))));

/** Puts a chunk in front of the first one of a type. */
export const beforeChunk = (png: Buffer, type: string, ...chunks: Buffer[]) => {
  const at = png.indexOf(type, 0, 'latin1') - 4;
  return join(png.subarray(0, at), ...chunks, png.subarray(at));
};

// RIFF

export const riffChunk = (type: string, data: Buffer) =>
  join(type, flip(u32(data.length)), data, Buffer.alloc(data.length % 2));

export function webp(...chunks: Buffer[]): Buffer {
  const body = join('WEBP', ...chunks);
  return join('RIFF', flip(u32(body.length)), body);
}

export const vp8x = (flags: number, width: number, height: number) =>
  riffChunk(
    'VP8X',
    join(u8(flags, 0, 0, 0), flip(u32(width - 1)).subarray(0, 3), flip(u32(height - 1)).subarray(0, 3)),
  );

/** The chunks of a WebP, each whole. */
export function riffChunks(bytes: Buffer): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 12; at < bytes.length;) {
    const length = bytes.readUInt32LE(at + 4);
    const end = at + 8 + length + (length % 2);
    chunks.push(bytes.subarray(at, end));
    at = end;
  }
  return chunks;
}

// ISO base media

export const box = (type: string, ...payload: (Buffer | string)[]) => {
  const bytes = join(...payload);
  return join(u32(bytes.length + 8), type, bytes);
};
export const largeBox = (type: string, ...payload: (Buffer | string)[]) => {
  const bytes = join(...payload);
  return join(u32(1), type, u64(bytes.length + 16), bytes);
};
export const lastBox = (type: string, ...payload: (Buffer | string)[]) => join(u32(0), type, ...payload);
export const fullBox = (type: string, version: number, flags: number, ...payload: (Buffer | string)[]) =>
  box(type, u8(version, 0, 0, flags), ...payload);

export const ispe = (width: number, height: number) => fullBox('ispe', 0, 0, u32(width), u32(height));
export const irot = (quarters: number) => box('irot', u8(quarters));
export const imir = (axis: number) => box('imir', u8(axis));
export const clap = (width: number, height: number) =>
  box('clap', u32(width), u32(1), u32(height), u32(1), u32(0), u32(1), u32(0), u32(1));

export interface HeifOptions {
  readonly brands?: readonly string[];
  readonly properties?: readonly Buffer[];
  /** For each item the numbers of its properties, from 1. */
  readonly items?: Readonly<Record<number, readonly number[]>>;
  readonly primary?: number;
  readonly pitmVersion?: 0 | 1;
  readonly ipmaVersion?: 0 | 1;
  readonly ipmaFlags?: number;
  readonly ilocVersion?: 0 | 1 | 2;
  /** Where the items' bytes are: in `mdat` (0) or in `idat` (1), for which `iloc` has to be of version 1 up. */
  readonly construction?: 0 | 1;
  /** Bytes which `iloc` claims past the 16 of each item. */
  readonly overreach?: number;
  readonly metaLast?: boolean;
  readonly mdat?: (type: string, payload: Buffer) => Buffer;
  readonly meta?: (type: string, payload: Buffer) => Buffer;
}

/** A HEIF or AVIF file, but for the coded pixels: every item has 16 bytes of its own in their place. */
export function heif(options: HeifOptions = {}): Buffer {
  const {
    brands = ['avif', 'mif1', 'miaf'],
    properties = [ispe(40, 30)],
    items = { 1: [1] },
    primary = 1,
    pitmVersion = 0,
    ipmaVersion = 0,
    ipmaFlags = 0,
    ilocVersion = 0,
    construction = 0,
    overreach = 0,
    metaLast = false,
    mdat = box,
    meta = box,
  } = options;
  const ids = Object.keys(items).map(Number);
  const pixels = Buffer.alloc(16 * ids.length, 0xab);
  const id = (value: number, isLong: boolean) => (isLong ? u32(value) : u16(value));

  const ftyp = box('ftyp', brands[0] ?? '', u32(0), ...brands);
  const ipma = ids.map((item) => {
    const indices = items[item] ?? [];
    const index = (value: number) => (ipmaFlags & 1 ? u16(value | 0x8000) : u8(value | 0x80));
    return join(id(item, ipmaVersion === 1), u8(indices.length), ...indices.map(index));
  });
  const metaAt = (pixelsAt: number) =>
    meta(
      'meta',
      join(
        u32(0),
        fullBox('hdlr', 0, 0, u32(0), 'pict', Buffer.alloc(13)),
        fullBox('pitm', pitmVersion, 0, id(primary, pitmVersion === 1)),
        fullBox(
          'iloc',
          ilocVersion,
          0,
          u8(0x44, 0),
          id(ids.length, ilocVersion === 2),
          ...ids.map((item, n) =>
            join(
              id(item, ilocVersion === 2),
              ilocVersion === 0 ? '' : u16(construction),
              u16(0),
              u16(1),
              u32(pixelsAt + 16 * n),
              u32(16 + overreach),
            ),
          ),
        ),
        box(
          'iprp',
          box('ipco', ...properties),
          fullBox('ipma', ipmaVersion, ipmaFlags, u32(ids.length), ...ipma),
        ),
        construction === 1 ? box('idat', pixels) : '',
      ),
    );
  if (construction === 1) return join(ftyp, metaAt(0));

  const data = mdat('mdat', pixels);
  const header = data.length - pixels.length;
  if (metaLast) return join(ftyp, data, metaAt(ftyp.length + header));
  return join(ftyp, metaAt(ftyp.length + metaAt(0).length + header), data);
}
