import { ApiProperty } from '@nestjs/swagger';
import { ID, type ImageMetadata, isImageId, KEY_PREFIX } from '#image-object';
import { type ListedObject, type ObjectHead, ObjectNotFoundError } from '#object-store';

/** @throws ObjectNotFoundError for what can't be an id, so that no other key can be asked for. */
export function keyOf(id: string): string {
  if (!isImageId(id)) throw new ObjectNotFoundError(id);
  return KEY_PREFIX + id;
}

export function idOf(key: string): string {
  return key.slice(KEY_PREFIX.length);
}

export class Image {
  @ApiProperty({ pattern: ID.source, example: '9f86d081884c7d659a2feaa0c55ad015' })
  readonly id!: string;

  @ApiProperty({ format: 'uri-reference', description: 'Absolute when PUBLIC_URL is set' })
  readonly url!: string;

  @ApiProperty({ example: 'image/jpeg', description: 'Decided by the bytes' })
  readonly contentType!: string;

  @ApiProperty({ type: 'integer', minimum: 1 })
  readonly bytes!: number;

  @ApiProperty({ type: 'integer', minimum: 1, description: 'Pixels as shown, orientation applied' })
  readonly width!: number;

  @ApiProperty({ type: 'integer', minimum: 1, description: 'Pixels as shown, orientation applied' })
  readonly height!: number;

  @ApiProperty({ description: 'As in the ETag header, quotes included' })
  readonly etag!: string;

  @ApiProperty({ description: "The client's name for it, in NFC, without folders, 255 bytes at most" })
  readonly originalName!: string;

  @ApiProperty({ format: 'date-time', description: 'RFC 3339, UTC' })
  readonly uploadedAt!: string;
}

export class CreatedImages {
  @ApiProperty({ type: [Image], description: 'In the order sent' })
  readonly images!: Image[];
}

export class ListedImage {
  @ApiProperty({ pattern: ID.source })
  readonly id!: string;

  @ApiProperty({ format: 'uri-reference' })
  readonly url!: string;

  @ApiProperty({ type: 'integer' })
  readonly bytes!: number;

  @ApiProperty()
  readonly etag!: string;

  @ApiProperty({
    format: 'date-time',
    description: "When the store had all of it: a moment after the image's own uploadedAt, when it began",
  })
  readonly uploadedAt!: string;
}

export class ImagePage {
  @ApiProperty({ type: [ListedImage] })
  readonly images!: ListedImage[];

  @ApiProperty({ type: String, nullable: true, description: 'Pass it as cursor for the next page' })
  readonly nextCursor!: string | null;
}

export function toImage(
  object: Pick<ObjectHead, 'key' | 'bytes' | 'etag' | 'contentType'>,
  metadata: ImageMetadata,
  publicUrl: string,
): Image {
  const id = idOf(object.key);
  return {
    id,
    url: urlOf(id, publicUrl),
    contentType: object.contentType,
    bytes: object.bytes,
    width: metadata.width,
    height: metadata.height,
    etag: object.etag,
    originalName: metadata.originalName,
    uploadedAt: metadata.uploadedAt.toISOString(),
  };
}

export function toListedImage(object: ListedObject, publicUrl: string): ListedImage {
  const id = idOf(object.key);
  return {
    id,
    url: urlOf(id, publicUrl),
    bytes: object.bytes,
    etag: object.etag,
    uploadedAt: object.lastModified.toISOString(),
  };
}

function urlOf(id: string, publicUrl: string): string {
  return `${publicUrl}/images/${id}`;
}
