import { setMaxListeners } from 'node:events';
import { Readable } from 'node:stream';
import { type Request } from 'express';
import { type StorageEngine } from 'multer';
import { ImageInspector, type ImageInfo } from '#image-format';
import { type ImageMetadata, KEY_PREFIX, newImageId, readMetadata, writeMetadata } from '#image-object';
import { type ObjectStore, type Owner, uploadMemoryBytes } from '#object-store';
import { type UploadConfig } from '../config.js';
import { type Image, toImage } from '../images/image.js';
import { toOriginalName } from '../images/original-name.js';
import { type Metrics } from '../metrics/metrics.js';
import { ClientGoneError, Problem } from '../problem/problem.js';
import { codeOf } from '../problem/problem.filter.js';
import { type IdempotencyKey, newNonce } from './idempotency-key.js';
import { type MemoryLease, type UploadMemory } from './upload-memory.js';

export const FORM_FIELD = 'images';

export interface StoredFile extends Express.Multer.File {
  readonly image: Image;
}

/** What an engine works with; one set for the whole process. */
export interface EngineParts {
  readonly config: UploadConfig;
  readonly publicUrl: string;
  readonly store: ObjectStore;
  readonly memory: UploadMemory;
  readonly metrics: Metrics;
}

/** What was read of an image before it is known whether it fits one S3 part. */
interface Start {
  /** One chunk if the image is whole, else a second one that no longer fitted. */
  readonly chunks: [Buffer, ...Buffer[]];
  /** Of the image as far as it was read. */
  bytes: number;
  readonly isWhole: boolean;
}

/**
 * multer's storage engine for one request: takes each form part as a stream, checks it while it flows,
 * and puts it into the store. All or nothing: the first thing that goes wrong aborts every form part.
 *
 * An image that fits one S3 part is kept in memory and put as one object with its length; a larger one is
 * a multipart upload, of which no more than the S3 parts in flight and the one being filled are in memory.
 */
export class ImageEngine implements StorageEngine {
  readonly #abort = new AbortController();
  readonly #work: Promise<void>[] = [];
  readonly #stored: { key: string; owner: Owner | undefined }[] = [];
  #positions = 0;
  #isAwaited = true;
  /** Ends with the first image of a request that may be repeated: stored, or known to be there. */
  #first: Promise<unknown> | undefined;

  /** `declaredBytes`: what the request says its body holds, Infinity when it doesn't say. */
  constructor(
    private readonly parts: EngineParts,
    private readonly declaredBytes: number,
    private readonly idempotencyKey: IdempotencyKey | undefined,
  ) {
    // Each image of the request listens; that is no leak.
    setMaxListeners(0, this.#abort.signal);
  }

  /** Aborted with the reason once the request is refused. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Stops every form part at once; the first reason counts. */
  refuse(reason: unknown): void {
    if (reason instanceof ClientGoneError) this.#isAwaited = false;
    if (!this.#abort.signal.aborted) this.#abort.abort(reason);
  }

  _handleFile(
    _request: Request,
    file: Express.Multer.File,
    callback: (error?: unknown, info?: Partial<StoredFile>) => void,
  ): void {
    const { metrics } = this.parts;
    // Busboy ends an oversized stream as if it were whole; without this a truncated image would be put.
    file.stream.once('limit', () => {
      this.refuse(
        new Problem(
          'IMAGE_TOO_LARGE',
          `An image is larger than ${this.parts.config.maxImageBytes} bytes; send a smaller one.`,
        ),
      );
    });
    const stopReading = () => file.stream.destroy(this.#abort.signal.reason as Error);
    this.#abort.signal.addEventListener('abort', stopReading, { once: true });
    metrics.uploadsInFlight.inc();
    const image = this.#take(file, this.#positions++);
    this.#first ??= image.catch(() => undefined);
    const work = image
      .then(
        (image) => {
          metrics.uploads.inc({ outcome: 'stored' });
          callback(null, { image });
        },
        (error: unknown) => {
          this.refuse(error);
          metrics.uploads.inc({ outcome: codeOf(this.#abort.signal.reason) });
          callback(error);
        },
      )
      .finally(() => {
        metrics.uploadsInFlight.dec();
        this.#abort.signal.removeEventListener('abort', stopReading);
      });
    this.#work.push(work);
  }

  /** Left to `discard`: multer would call this only after the last byte of a refused body. */
  _removeFile(_request: Request, _file: Express.Multer.File, callback: (error: Error | null) => void): void {
    callback(null);
  }

  /** Says that the request is answered, or nobody is left to answer. */
  end(): void {
    this.#isAwaited = false;
  }

  /** Waits until every aborted put has ended, then takes back what the refused request had stored. */
  async discard(): Promise<void> {
    await Promise.all(this.#work);
    await Promise.all(this.#stored.map(({ key, owner }) => this.parts.store.discard(key, owner)));
  }

  async #take(file: Express.Multer.File, position: number): Promise<Image> {
    const { config, memory, metrics } = this.parts;
    const { signal } = this;
    signal.throwIfAborted();
    if (file.fieldname !== FORM_FIELD) {
      throw new Problem(
        'UNEXPECTED_FIELD',
        `A form part has a name that is not expected; name each one "${FORM_FIELD}".`,
      );
    }
    const lease = await memory.acquire(
      uploadMemoryBytes(Math.min(this.declaredBytes, config.maxImageBytes), config),
      signal,
    );
    const stop = metrics.uploadSeconds.startTimer();
    try {
      const image = await this.#store(file, position, lease);
      stop();
      metrics.uploadBytes.inc(image.bytes);
      return image;
    } finally {
      lease.release();
    }
  }

  async #store(file: Express.Multer.File, position: number, lease: MemoryLease): Promise<Image> {
    const { config, store, publicUrl } = this.parts;
    const inspector = new ImageInspector(config);
    const start = await this.#readStart(file.stream, inspector);
    const { isWhole } = start;
    if (start.bytes === 0) {
      throw new Problem('NO_IMAGE', 'A form part is empty (0 bytes); send the image itself.');
    }
    if (isWhole) lease.shrinkTo(start.bytes);

    const key = KEY_PREFIX + (this.idempotencyKey?.imageId(position) ?? newImageId());
    const owner = this.idempotencyKey && this.#newOwner();
    const originalName = toOriginalName(file.originalname);
    const uploadedAt = new Date();
    const metadataOf = ({ width, height }: ImageInfo) => ({ width, height, originalName, uploadedAt });
    const object = (metadata: ImageMetadata, contentType: string) => ({
      key,
      contentType,
      metadata: writeMetadata(metadata),
    });

    const early = isWhole ? inspector.finish() : headerOf(inspector, start.bytes);
    // Of requests that race for one key with other images each, the one that wins the first place is to win them all.
    if (owner && position > 0) await this.#first;
    const body = isWhole ? start.chunks[0] : Readable.from(this.#readAll(start, file.stream, inspector));
    const stored = await store.put(
      { ...object(metadataOf(early), early.contentType), body, owner },
      this.signal,
    );
    if (!stored.existing) this.#stored.push({ key, owner });
    let { etag } = stored;
    let metadata = stored.existing ? readMetadata(stored.existing) : metadataOf(early);

    // A WebP tells behind its pixels that it is to be shown sideways, when the store has the metadata long since.
    const { width, height, contentType } = inspector.info ?? early;
    if (width !== metadata.width) {
      metadata = { ...metadata, width, height };
      ({ etag } = await store.describe(
        { ...object(metadata, contentType), owner: stored.existing ? undefined : owner },
        this.signal,
      ));
    }
    return toImage({ key, bytes: start.bytes, etag, contentType }, metadata, publicUrl);
  }

  /** Of one image: whoever repeats the request, here or elsewhere, is another. */
  #newOwner(): Owner {
    return { nonce: newNonce(), isAwaited: () => this.#isAwaited };
  }

  /** Reads as much as one S3 part takes. */
  async #readStart(stream: Readable, inspector: ImageInspector): Promise<Start> {
    // One buffer from the start: joining chunks later would hold every byte twice for a moment.
    const room = Buffer.allocUnsafeSlow(Math.min(this.declaredBytes, this.parts.config.partBytes));
    let bytes = 0;
    for await (const chunk of chunksOf(stream)) {
      inspector.push(chunk);
      if (bytes + chunk.length > room.length) {
        return { chunks: [room.subarray(0, bytes), chunk], bytes: bytes + chunk.length, isWhole: false };
      }
      chunk.copy(room, bytes);
      bytes += chunk.length;
    }
    return { chunks: [room.subarray(0, bytes)], bytes, isWhole: true };
  }

  /** The whole image, chunk by chunk; fails before its end, and so before the store has it, if a check does. */
  async *#readAll(start: Start, stream: Readable, inspector: ImageInspector): AsyncGenerator<Buffer> {
    // Let go of each, or the first S3 part would stay in memory until the last one is sent.
    for (let chunk = start.chunks.shift(); chunk; chunk = start.chunks.shift()) yield chunk;
    for await (const chunk of chunksOf(stream)) {
      this.#check(() => inspector.push(chunk));
      start.bytes += chunk.length;
      yield chunk;
    }
    this.#check(() => inspector.finish());
  }

  /** What a check finds is the reason of the refusal, not that the store then misses the rest of a body. */
  #check(check: () => unknown): void {
    try {
      check();
    } catch (error) {
      this.refuse(error);
      throw error;
    }
  }
}

/** Stopping early leaves the stream be: destroyed, it would have busboy report a malformed body. */
function chunksOf(stream: Readable): AsyncIterable<Buffer> {
  return stream.iterator({ destroyOnReturn: false });
}

function headerOf(inspector: ImageInspector, bytes: number): ImageInfo {
  if (inspector.info) return inspector.info;
  throw new Problem(
    'CORRUPT_IMAGE',
    `The image doesn't say its width and height within its first ${bytes} bytes; save it anew with another program.`,
  );
}
