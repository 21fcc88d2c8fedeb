import type { ByteReader, Walk } from './bytes.js';

const ORIENTATION = 0x0112;
const SHORT = 3;

/**
 * The orientation (1 to 8) in an EXIF block that reaches from here to `end`: TIFF 6.0, section 2,
 * and EXIF 2.32, section 4.6.4. Reads forward only and keeps nothing, so no offset in it can lead
 * astray. Whatever is wrong with EXIF makes it say nothing: it never refuses an image.
 */
export function* readOrientation(bytes: ByteReader, end: number): Walk<number | undefined> {
  if (end - bytes.position < 8) return undefined;
  while (bytes.lacks(8)) yield;
  // JPEG puts this before the TIFF header; PNG and WebP do not, but some writers do it there too.
  if (bytes.peek(6).toString('latin1') === 'Exif\0\0') bytes.skip(6);

  const tiff = bytes.position;
  if (end - tiff < 8) return undefined;
  while (bytes.lacks(8)) yield;
  const header = bytes.take(8);
  const signature = header.toString('latin1', 0, 4);
  const little = signature === 'II*\0';
  if (!little && signature !== 'MM\0*') return undefined;

  const directory = tiff + (little ? header.readUInt32LE(4) : header.readUInt32BE(4));
  if (directory < bytes.position || directory + 2 > end) return undefined;
  bytes.skipTo(directory);
  while (bytes.lacks(2)) yield;
  const count = bytes.take(2);
  let entries = little ? count.readUInt16LE() : count.readUInt16BE();
  for (; entries > 0 && bytes.position + 12 <= end; entries--) {
    while (bytes.lacks(12)) yield;
    const entry = bytes.take(12);
    const u16 = (at: number) => (little ? entry.readUInt16LE(at) : entry.readUInt16BE(at));
    if (u16(0) !== ORIENTATION) continue;
    const orientation = u16(8);
    return u16(2) === SHORT && orientation >= 1 && orientation <= 8 ? orientation : undefined;
  }
  return undefined;
}
