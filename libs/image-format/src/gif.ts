import type { ByteReader, Walk } from './bytes.js';
import { corrupt, type Findings } from './image.js';

const EXTENSION = 0x21;
const IMAGE = 0x2c;
const TRAILER = 0x3b;

/**
 * GIF89a, sections 15 to 27 and appendix A: a screen, then extensions and images made of sub-blocks
 * of at most 255 bytes, up to the trailer. Bytes after the trailer are no part of the image.
 */
export function* walkGif(bytes: ByteReader, image: Findings): Walk {
  while (bytes.lacks(6)) yield;
  if (!/^GIF8[79]a$/.test(bytes.take(6).toString('latin1'))) throw image.unknown();
  image.is('image/gif');

  while (bytes.lacks(7)) yield;
  const screen = bytes.take(7);
  image.shows(screen.readUInt16LE(0), screen.readUInt16LE(2));
  bytes.skip(colorTableBytes(screen.readUInt8(4)));

  let frames = 0;
  for (;;) {
    while (bytes.lacks(1)) yield;
    const introducer = bytes.u8();
    if (introducer === TRAILER) break;
    if (introducer === EXTENSION) {
      bytes.skip(1);
    } else if (introducer === IMAGE) {
      while (bytes.lacks(9)) yield;
      const frame = bytes.take(9);
      // A frame may reach past the screen; decoders make room for it.
      image.measures(frame.readUInt16LE(4), frame.readUInt16LE(6));
      bytes.skip(colorTableBytes(frame.readUInt8(8)) + 1);
      frames++;
    } else if (introducer === 0) {
      // An empty sub-block too many, which some writers leave.
      continue;
    } else {
      throw corrupt('a GIF block of no known kind follows');
    }
    for (;;) {
      while (bytes.lacks(1)) yield;
      const length = bytes.u8();
      if (length === 0) break;
      bytes.skip(length);
    }
  }
  if (frames === 0) throw corrupt('it has no GIF frame');
}

/** Section 18, e: a table is there when the top bit is set, with 2^(size + 1) colours. */
function colorTableBytes(flags: number): number {
  return flags & 0x80 ? 3 << ((flags & 7) + 1) : 0;
}
