export const IMAGE_TYPES = [
  'image/jpeg',
  'image/png',
  'image/gif',
  'image/webp',
  'image/avif',
  'image/heic',
  'image/heif',
] as const;

export type ImageType = (typeof IMAGE_TYPES)[number];

export interface ImageInfo {
  readonly contentType: ImageType;
  /** In pixels as shown: a photograph taken sideways is measured upright. */
  readonly width: number;
  readonly height: number;
}

export type ImageErrorCode = 'UNSUPPORTED_IMAGE' | 'CORRUPT_IMAGE' | 'TOO_MANY_PIXELS';

/** Why an image is refused. The message is for whoever sent it, and repeats none of its bytes. */
export class ImageError extends Error {
  override readonly name = 'ImageError';

  constructor(
    readonly code: ImageErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** `problem` is a clause about the file: "it has no end". */
export function corrupt(problem: string): ImageError {
  return new ImageError(
    'CORRUPT_IMAGE',
    `The image is damaged: ${problem}. Open it in an image editor, save it again and send that file.`,
  );
}

export interface ImageLimits {
  readonly allowedTypes: ReadonlySet<ImageType>;
  /** Width times height, of the whole image and of any one frame. */
  readonly maxPixels: number;
}

/** What a walker has found out so far, each claim checked as it is made. */
export class Findings {
  info: ImageInfo | undefined;
  type: ImageType | undefined;

  constructor(private readonly limits: ImageLimits) {}

  is(type: ImageType): void {
    if (!this.limits.allowedTypes.has(type)) {
      throw new ImageError(
        'UNSUPPORTED_IMAGE',
        `This is an ${type} image, which is not accepted here. Send ${this.accepted}, ` +
          `or have ALLOWED_TYPES of this service name ${type}.`,
      );
    }
    this.type = type;
  }

  /** Checks the size of a canvas or frame as it is stored. */
  measures(width: number, height: number): void {
    if (width < 1 || height < 1) throw corrupt(`it says it is ${width} × ${height} pixels`);
    if (width * height > this.limits.maxPixels) {
      throw new ImageError(
        'TOO_MANY_PIXELS',
        `The image says it is ${width} × ${height} pixels; at most ${this.limits.maxPixels} pixels ` +
          '(width times height) are accepted. Scale it down and send it again.',
      );
    }
  }

  /** Tells the size; `orientation` is EXIF's, 5 to 8 of which lie on their side. */
  shows(width: number, height: number, orientation = 1): void {
    if (this.type === undefined) throw new Error('A walker tells the type before the size.');
    this.measures(width, height);
    this.info =
      orientation < 5
        ? { contentType: this.type, width, height }
        : { contentType: this.type, width: height, height: width };
  }

  /** What to say of `bytes` bytes, when that is all there are. */
  unknown(bytes?: number): ImageError {
    const problem =
      bytes === 0
        ? 'The file is empty.'
        : 'This is not an image of a kind known here; its first bytes decide that, not its name.';
    return new ImageError('UNSUPPORTED_IMAGE', `${problem} Send ${this.accepted}.`);
  }

  private get accepted(): string {
    return new Intl.ListFormat('en', { type: 'disjunction' }).format(this.limits.allowedTypes);
  }
}
