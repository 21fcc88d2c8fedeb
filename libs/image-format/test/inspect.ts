import { IMAGE_TYPES, ImageInspector, type ImageInfo, type ImageType } from '../src/index.js';

export interface InspectOptions {
  /** The length of each chunk in turn. Everything at once when not given. */
  readonly chunkBytes?: () => number;
  readonly allowedTypes?: Iterable<ImageType>;
  readonly maxPixels?: number;
}

export function inspector({ allowedTypes = IMAGE_TYPES, maxPixels = 100_000_000 }: InspectOptions = {}) {
  return new ImageInspector({ allowedTypes: new Set(allowedTypes), maxPixels });
}

export function inspect(bytes: Uint8Array, options: InspectOptions = {}): ImageInfo {
  const image = inspector(options);
  for (let at = 0; at < bytes.length;) {
    const end = at + (options.chunkBytes?.() ?? bytes.length);
    image.push(bytes.subarray(at, end));
    at = end;
  }
  return image.finish();
}

/** Says how it ended, for tests that only ask whether and why. */
export function verdict(bytes: Uint8Array, options?: InspectOptions): string {
  try {
    const { contentType, width, height } = inspect(bytes, options);
    return `${contentType} ${width} × ${height}`;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.name === 'ImageError') return String(error.code);
    throw error;
  }
}

/** A generator of numbers from 0 up to, not including, a bound: the same ones for the same seed. */
export function random(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
}
