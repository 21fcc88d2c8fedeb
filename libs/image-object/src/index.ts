import { randomBytes } from 'node:crypto';
import { type ObjectHead } from '#object-store';

export const KEY_PREFIX = 'images/';
/** 128 bits in hexadecimal: fit for a URL, not to be guessed, and silent about the client's name. */
export const ID = /^[\da-f]{32}$/;

export function newImageId(): string {
  return randomBytes(16).toString('hex');
}

export function isImageId(text: string): boolean {
  return ID.test(text);
}

/** Whether an object of this key can be an image of ours. */
export function isImageKey(key: string): boolean {
  return key.startsWith(KEY_PREFIX) && isImageId(key.slice(KEY_PREFIX.length));
}

/** What is kept with the object, so that no database has to know it. S3 takes ASCII only. */
export interface ImageMetadata {
  readonly width: number;
  readonly height: number;
  readonly originalName: string;
  readonly uploadedAt: Date;
}

export function writeMetadata(metadata: ImageMetadata): Record<string, string> {
  return {
    width: String(metadata.width),
    height: String(metadata.height),
    'original-name': encodeURIComponent(metadata.originalName),
    'uploaded-at': metadata.uploadedAt.toISOString(),
  };
}

export function readMetadata({ metadata, lastModified }: ObjectHead): ImageMetadata {
  return {
    width: Number(metadata['width']),
    height: Number(metadata['height']),
    originalName: decodeURIComponent(metadata['original-name'] ?? 'image'),
    uploadedAt: metadata['uploaded-at'] === undefined ? lastModified : new Date(metadata['uploaded-at']),
  };
}

/** Whether an image was put by Naru, which never does without its size in pixels. */
export function hasMetadata({ metadata }: Pick<ObjectHead, 'metadata'>): boolean {
  return /^\d+$/.test(metadata['width'] ?? '') && /^\d+$/.test(metadata['height'] ?? '');
}
