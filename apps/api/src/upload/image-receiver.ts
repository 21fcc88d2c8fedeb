import { type ServerResponse } from 'node:http';
import { type Readable, type Writable } from 'node:stream';
import { Injectable } from '@nestjs/common';
import { type Request, type Response } from 'express';
import multer from 'multer';
import { Config } from '../config.js';
import { StoreWatch } from '../health/store-watch.js';
import { type Image } from '../images/image.js';
import { Metrics } from '../metrics/metrics.js';
import { writeContinue } from '../problem/answer.js';
import { ClientGoneError, Problem } from '../problem/problem.js';
import { callerOf } from '../auth/api-key.guard.js';
import { IdempotencyKey } from './idempotency-key.js';
import { type EngineParts, FORM_FIELD, ImageEngine, type StoredFile } from './image-engine.js';
import { UploadMemory } from './upload-memory.js';

// The head of a form part is at most 16 KiB (busboy's limit); a boundary and line ends come on top.
const FORM_PART_OVERHEAD_BYTES = 17 * 1024;

/** How far an upload has come: images that have begun, and bytes of its body. */
export interface UploadProgress {
  images: number;
  receivedBytes: number;
}

interface ActiveUpload {
  readonly engine: ImageEngine;
  readonly progress: UploadProgress;
  readonly ended: Promise<unknown>;
}

/** Takes the images of a request: from its head through multer and the engine to the store. */
@Injectable()
export class ImageReceiver {
  readonly #parts: EngineParts;
  readonly #active = new Map<ServerResponse, ActiveUpload>();
  #isCutting = false;

  constructor(
    private readonly config: Config,
    private readonly store: StoreWatch,
    memory: UploadMemory,
    metrics: Metrics,
  ) {
    this.#parts = { config: config.upload, publicUrl: config.publicUrl, store, memory, metrics };
  }

  /**
   * Resolves with every image of the request, in the order sent, once all of them are readable.
   * When it rejects, none of them is kept.
   *
   * @throws Problem, ImageError or StoreUnavailableError
   */
  async receive(request: Request, response: Response): Promise<Image[]> {
    if (this.#isCutting) throw draining();
    const idempotencyKey = this.#readIdempotencyKey(request, response);
    const declaredBytes = this.#admit(request);
    this.store.admitUpload();
    const engine = new ImageEngine(this.#parts, declaredBytes, idempotencyKey);
    const progress = { images: 0, receivedBytes: 0 };
    const images = this.#run(engine, progress, request, response);
    const ended = images.then(
      () => this.#active.delete(response),
      () => this.#active.delete(response),
    );
    this.#active.set(response, { engine, progress, ended });
    return images;
  }

  /** Of the upload that is to get this answer; undefined when there is none. */
  progressOf(response: ServerResponse): UploadProgress | undefined {
    return this.#active.get(response)?.progress;
  }

  /** Aborts every upload, as when the grace period is over; resolves when nothing of them is left. No other begins. */
  async abortAll(): Promise<void> {
    this.#isCutting = true;
    const active = [...this.#active.values()];
    for (const { engine } of active) engine.refuse(draining());
    await Promise.all(active.map(({ ended }) => ended));
  }

  async #run(
    engine: ImageEngine,
    progress: UploadProgress,
    request: Request,
    response: Response,
  ): Promise<Image[]> {
    const unwatch = this.#watch(engine, request, response);
    try {
      writeContinue(request, response);
      const images = await this.#parse(engine, progress, request, response);
      if (images.length === 0) {
        throw new Problem(
          'NO_IMAGE',
          `The form holds no image; send one or more form parts named "${FORM_FIELD}".`,
        );
      }
      return images;
    } catch (error) {
      engine.refuse(error);
      await engine.discard();
      throw error;
    } finally {
      unwatch();
      engine.end();
    }
  }

  /** Refuses what the head of a request already rules out, before its body is read; returns what it declares. */
  #admit(request: Request): number {
    if (!/^multipart\/form-data\s*(;|$)/i.test(request.get('content-type') ?? '')) {
      throw new Problem(
        'UNSUPPORTED_MEDIA_TYPE',
        `Send the images as multipart/form-data, in form parts named "${FORM_FIELD}".`,
      );
    }
    const length = request.get('content-length');
    if (length === undefined) return Infinity;
    const declaredBytes = Number(length);
    if (declaredBytes > this.#maxRequestBytes) throw this.#tooLarge();
    return declaredBytes;
  }

  /** The secret is one that all replicas of a store share, and no client has. */
  #readIdempotencyKey(request: Request, response: Response): IdempotencyKey | undefined {
    const key = request.get('idempotency-key');
    const secret = this.config.s3.credentials?.secretAccessKey ?? '';
    return key === undefined ? undefined : new IdempotencyKey(secret, callerOf(response), key);
  }

  get #maxRequestBytes(): number {
    const { maxImageBytes, maxImagesPerRequest } = this.config.upload;
    return maxImagesPerRequest * (maxImageBytes + FORM_PART_OVERHEAD_BYTES);
  }

  #tooLarge(): Problem {
    const { maxImageBytes, maxImagesPerRequest } = this.config.upload;
    return new Problem(
      'IMAGE_TOO_LARGE',
      `The request is too large; at most ${maxImagesPerRequest} images of ${maxImageBytes} bytes each are accepted.`,
    );
  }

  /** Refuses the upload when its client leaves or takes too long; returns what ends the watch. */
  #watch(engine: ImageEngine, request: Request, response: Response): () => void {
    const { timeoutMs } = this.config.upload;
    const timer = setTimeout(() => {
      engine.refuse(
        new Problem('UPLOAD_TIMEOUT', `The upload was not complete after ${timeoutMs} ms; nothing was kept.`),
      );
    }, timeoutMs);
    const onEnd = () => {
      clearTimeout(timer);
    };
    const onClose = () => {
      engine.refuse(new ClientGoneError('the client left before the upload was done'));
    };
    request.once('end', onEnd);
    response.once('close', onClose);
    return () => {
      clearTimeout(timer);
      request.off('end', onEnd);
      response.off('close', onClose);
    };
  }

  #parse(
    engine: ImageEngine,
    progress: UploadProgress,
    request: Request,
    response: Response,
  ): Promise<Image[]> {
    const { maxImageBytes, maxImagesPerRequest } = this.config.upload;
    const parse = multer({
      storage: engine,
      limits: { fileSize: maxImageBytes, files: maxImagesPerRequest, fields: 0, parts: maxImagesPerRequest },
      // The default, latin1, garbles every name that is not Western European.
      defParamCharset: 'utf8',
      preservePath: true,
      streamHandler: (_request: Request, busboy: Writable) => {
        this.#refuseAtOnce(engine, request, busboy);
        busboy.on('file', () => {
          progress.images += 1;
        });
        this.#countBytes(engine, progress, request);
        request.pipe(busboy);
      },
    } as multer.Options).any();
    return new Promise((resolve, reject) => {
      engine.signal.addEventListener(
        'abort',
        () => {
          reject(engine.signal.reason as Error);
        },
        { once: true },
      );
      parse(request, response, (error: unknown) => {
        if (error) engine.refuse(malformed(error));
        else resolve(((request.files ?? []) as StoredFile[]).map((file) => file.image));
      });
    });
  }

  /** Bounds a chunked body as well, which declares nothing: what is no image in it could go on for ever. */
  #countBytes(engine: ImageEngine, progress: UploadProgress, request: Request): void {
    request.on('data', (chunk: Buffer) => {
      progress.receivedBytes += chunk.length;
      if (progress.receivedBytes > this.#maxRequestBytes) engine.refuse(this.#tooLarge());
    });
  }

  /** multer reports what it refuses itself only after the last byte of the body; busboy says it at once. */
  #refuseAtOnce(engine: ImageEngine, request: Request, busboy: Writable): void {
    const { maxImagesPerRequest } = this.config.upload;
    const tooMany = () => {
      engine.refuse(
        new Problem('TOO_MANY_IMAGES', `At most ${maxImagesPerRequest} images are accepted in one request.`),
      );
    };
    busboy.once('filesLimit', tooMany);
    busboy.once('partsLimit', tooMany);
    busboy.once('fieldsLimit', () => {
      engine.refuse(
        new Problem(
          'UNEXPECTED_FIELD',
          `The form holds a text field; only form parts named "${FORM_FIELD}" that carry a file are accepted.`,
        ),
      );
    });
    // multer drops a file part without a name in silence; a browser sends an empty one when no file was chosen.
    busboy.on('file', (_field: string, stream: Readable, { filename }: { filename?: string }) => {
      if (filename) return;
      stream.once('data', () => {
        engine.refuse(
          new Problem(
            'UNEXPECTED_FIELD',
            'A form part carries bytes but no file name; give it one, whatever it is.',
          ),
        );
      });
    });
    busboy.once('error', (error: unknown) => {
      engine.refuse(
        // A request that came to its end is destroyed as well.
        request.destroyed && !request.complete
          ? new ClientGoneError('the client left in the middle of its body')
          : malformed(error),
      );
    });
  }
}

function draining(): Problem {
  return new Problem(
    'DRAINING',
    'This replica had to stop before the upload was done. Nothing was kept; send it again.',
  );
}

function malformed(error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  return new Problem(
    'MALFORMED_MULTIPART',
    `The body can't be read as multipart/form-data (${message}); see RFC 7578 for the form it has to have.`,
    { cause: error },
  );
}
