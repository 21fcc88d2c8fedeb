import type { ByteReader, Walk } from './bytes.js';
import { readOrientation } from './exif.js';
import { corrupt, type Findings } from './image.js';

const SIGNATURE = '\x89PNG\r\n\x1a\n';

/**
 * PNG, third edition (W3C), section 5: a signature, then chunks of length, type, data and CRC, from
 * IHDR to IEND. Chunks are stepped over by length and their CRCs left to decoders. APNG's frames lie
 * inside IHDR's canvas. eXIf counts when it comes before IDAT, as decoders have it.
 */
export function* walkPng(bytes: ByteReader, image: Findings): Walk {
  while (bytes.lacks(8)) yield;
  if (bytes.take(8).toString('latin1') !== SIGNATURE) throw image.unknown();
  image.is('image/png');

  while (bytes.lacks(16)) yield;
  if (bytes.u32() !== 13 || bytes.name() !== 'IHDR') throw corrupt('its PNG header is not where it belongs');
  const width = bytes.u32();
  const height = bytes.u32();
  image.measures(width, height);
  bytes.skip(9);

  let orientation: number | undefined;
  let hasData = false;
  for (;;) {
    while (bytes.lacks(8)) yield;
    const length = bytes.u32();
    const type = bytes.name();
    if (length > 0x7fff_ffff || !/^[A-Za-z]{4}$/.test(type))
      throw corrupt('a PNG chunk header makes no sense');
    const end = bytes.position + length + 4;
    if (type === 'IEND') {
      bytes.skipTo(end);
      break;
    }
    if (type === 'IDAT' && !hasData) {
      hasData = true;
      image.shows(width, height, orientation);
    } else if (type === 'eXIf') {
      orientation = yield* readOrientation(bytes, end - 4);
    } else if (type === 'IHDR') {
      throw corrupt('it has a second PNG header');
    }
    bytes.skipTo(end);
  }
  if (!hasData) throw corrupt('it ends before its PNG data begins');
}
