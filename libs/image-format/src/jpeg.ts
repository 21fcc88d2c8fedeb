import type { ByteReader, Walk } from './bytes.js';
import { readOrientation } from './exif.js';
import { corrupt, type Findings } from './image.js';

// ITU T.81, table B.1.
const SOI = 0xd8;
const EOI = 0xd9;
const SOS = 0xda;
const DNL = 0xdc;
const APP1 = 0xe1;
/** A frame's header: C0 to CF, but for DHT (C4), JPG (C8) and DAC (CC). */
const isSof = (marker: number) =>
  marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
/**
 * What may follow a 0xFF without being a marker that matters: a stuffed zero, a fill byte (B.1.1.2),
 * a restart (D0 to D7, inside entropy-coded data), and the codes below C0, which no file carries.
 */
const isMarker = (code: number) => code >= 0xc0 && code !== 0xff && (code & 0xf8) !== 0xd0;

/**
 * ITU T.81, annex B: segments, each with its length, and after each SOS entropy-coded data, which
 * ends at the first marker. A marker inside a segment (a thumbnail's EOI) is stepped over with it.
 * Bytes between a segment and the next marker are passed by, as decoders do, and bytes after EOI
 * are no part of the image.
 */
export function* walkJpeg(bytes: ByteReader, image: Findings): Walk {
  while (bytes.lacks(3)) yield;
  if (bytes.u16() !== 0xffd8 || bytes.at(0) !== 0xff) throw image.unknown();
  image.is('image/jpeg');

  let frame: { width: number; height: number } | undefined;
  let orientation: number | undefined;
  let scanned = false;
  for (;;) {
    const marker = bytes.seekPair(0xff, isMarker);
    if (marker === undefined) {
      while (bytes.lacks(2)) yield;
      continue;
    }
    if (marker === EOI) break;
    if (marker === SOI) throw corrupt('a second image begins before the first one ends');

    while (bytes.lacks(2)) yield;
    const length = bytes.u16();
    const end = bytes.position + length - 2;
    if (length < 2) throw corrupt('a JPEG segment is shorter than its own length field');

    if (isSof(marker)) {
      if (frame) throw corrupt('it has a second JPEG frame header');
      if (end - bytes.position < 6) throw corrupt('its JPEG frame header is too short');
      while (bytes.lacks(6)) yield;
      bytes.skip(1);
      const height = bytes.u16();
      frame = { width: bytes.u16(), height };
      // Height 0 is told after the first scan, by DNL (B.2.5).
      image.measures(frame.width, frame.height || 1);
    } else if (marker === DNL && frame?.height === 0) {
      if (end - bytes.position < 2) throw corrupt('its JPEG line count is too short');
      while (bytes.lacks(2)) yield;
      frame.height = bytes.u16();
      image.shows(frame.width, frame.height, orientation);
    } else if (marker === APP1 && orientation === undefined && !scanned) {
      orientation = yield* readOrientation(bytes, end);
    } else if (marker === SOS) {
      if (!frame) throw corrupt('its JPEG data begins before its frame header');
      if (frame.height > 0) image.shows(frame.width, frame.height, orientation);
      scanned = true;
    }
    bytes.skipTo(end);
  }
  if (!scanned) throw corrupt('it ends before its JPEG data begins');
}
