import { ByteReader, type Walk } from './bytes.js';
import { walkGif } from './gif.js';
import { corrupt, Findings, type ImageInfo, type ImageLimits } from './image.js';
import { walkIsobmff } from './isobmff.js';
import { walkJpeg } from './jpeg.js';
import { walkPng } from './png.js';
import { walkWebp } from './webp.js';

/**
 * Watches an image's bytes go by and says what it is, how large it is shown, and whether it is whole.
 *
 * Keeps no image bytes: between two chunks fewer than a hundred of them, those of a header that
 * straddles both, and for AVIF and HEIF, while their `meta` goes by, a table of at most 2 MiB (a camera's
 * takes a few KiB). Inside JPEG's entropy-coded data it costs a native search for 0xFF, which takes about
 * as long as a CRC-32 of the same bytes; everything else is stepped over by its length. Pixels are not
 * decoded, nor checksums verified.
 */
export class ImageInspector {
  private readonly bytes = new ByteReader();
  private readonly image: Findings;
  private readonly walk: Walk;
  private isWhole = false;
  private failure: Error | undefined;

  constructor(limits: ImageLimits) {
    this.image = new Findings(limits);
    this.walk = walkAny(this.bytes, this.image);
  }

  /** Throws an ImageError as soon as it is certain, and again whenever it is asked after that. */
  push(chunk: Uint8Array): void {
    if (this.failure) throw this.failure;
    this.bytes.feed(chunk);
    this.advance();
  }

  /**
   * What the header told so far; `finish` has the last word. The two differ only for a WebP whose EXIF
   * says that it was taken sideways: EXIF comes after the pixels there, and makes width and height
   * change places.
   */
  get info(): ImageInfo | undefined {
    return this.image.info;
  }

  /** Throws an ImageError when the image is cut off. */
  finish(): ImageInfo {
    if (this.failure) throw this.failure;
    if (!this.image.type) throw this.image.unknown(this.bytes.received);
    this.bytes.end();
    this.advance();
    // Throws when what was stepped over never came.
    this.bytes.lacks(0);
    if (!this.image.info) throw corrupt('it does not say how many pixels it has');
    return this.image.info;
  }

  private advance(): void {
    try {
      if (!this.isWhole) this.isWhole = this.walk.next().done === true;
    } catch (error) {
      this.failure = error as Error;
      throw error;
    }
    if (this.isWhole) this.bytes.skipAll();
    this.bytes.release();
  }
}

/** Each format is known by its first two bytes; its walker checks the rest of its signature. */
function* walkAny(bytes: ByteReader, image: Findings): Walk {
  while (bytes.lacks(2)) yield;
  switch (bytes.peek(2).readUInt16BE()) {
    case 0xffd8:
      return yield* walkJpeg(bytes, image);
    case 0x8950:
      return yield* walkPng(bytes, image);
    case 0x4749:
      return yield* walkGif(bytes, image);
    case 0x5249:
      return yield* walkWebp(bytes, image);
    default:
      return yield* walkIsobmff(bytes, image);
  }
}
