import type { ByteReader, Walk } from './bytes.js';
import { readOrientation } from './exif.js';
import { corrupt, type Findings } from './image.js';

const HAS_EXIF = 0x08;

/**
 * RFC 9649, section 2: a RIFF of chunks. The size is in VP8X when that is there, else in the first
 * frame: VP8 (RFC 6386, section 9.1) or VP8L (RFC 9649, section 3.4). EXIF follows the frames, so
 * the size may turn late. Bytes after the RIFF are no part of the image.
 */
export function* walkWebp(bytes: ByteReader, image: Findings): Walk {
  while (bytes.lacks(12)) yield;
  const header = bytes.take(12);
  if (header.toString('latin1', 0, 4) !== 'RIFF' || header.toString('latin1', 8) !== 'WEBP')
    throw image.unknown();
  image.is('image/webp');

  const riffEnd = bytes.position - 4 + header.readUInt32LE(4);
  let canvas: { width: number; height: number } | undefined;
  let mayTurn = false;
  let hasFrame = false;
  while (bytes.position + 8 <= riffEnd) {
    while (bytes.lacks(8)) yield;
    const type = bytes.name();
    const length = bytes.u32le();
    const end = bytes.position + length;
    if (end > riffEnd) throw corrupt('a WebP chunk is longer than the file says it is');

    if (type === 'VP8X' || type === 'VP8 ' || type === 'VP8L' || type === 'ANMF') {
      const needed = type === 'VP8L' ? 5 : type === 'ANMF' ? 16 : 10;
      if (length < needed) throw corrupt('a WebP frame is shorter than its header');
      while (bytes.lacks(needed)) yield;
      const [width, height] = MEASURE[type](bytes.peek(needed));
      image.measures(width, height);
      if (!canvas) {
        canvas = { width, height };
        mayTurn = type === 'VP8X' && ((bytes.at(0) ?? 0) & HAS_EXIF) !== 0;
        image.shows(width, height);
      }
      hasFrame ||= type !== 'VP8X';
    } else if (type === 'EXIF' && canvas && mayTurn) {
      mayTurn = false;
      image.shows(canvas.width, canvas.height, yield* readOrientation(bytes, end));
    }
    bytes.skipTo(Math.min(end + (length & 1), riffEnd));
  }
  bytes.skipTo(riffEnd);
  if (!hasFrame) throw corrupt('it has no WebP frame');
}

const MEASURE = {
  VP8X: (chunk: Buffer) => [chunk.readUIntLE(4, 3) + 1, chunk.readUIntLE(7, 3) + 1],
  ANMF: (chunk: Buffer) => [chunk.readUIntLE(6, 3) + 1, chunk.readUIntLE(9, 3) + 1],
  'VP8 ': (chunk: Buffer) => {
    if (chunk.readUIntBE(3, 3) !== 0x9d012a) throw corrupt('its WebP frame does not begin with a key frame');
    return [chunk.readUInt16LE(6) & 0x3fff, chunk.readUInt16LE(8) & 0x3fff];
  },
  VP8L: (chunk: Buffer) => {
    if (chunk[0] !== 0x2f) throw corrupt('its lossless WebP frame has the wrong signature');
    const bits = chunk.readUInt32LE(1);
    return [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1];
  },
} satisfies Record<string, (chunk: Buffer) => [number, number]>;
