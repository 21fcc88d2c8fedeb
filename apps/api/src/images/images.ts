import { Injectable, StreamableFile } from '@nestjs/common';
import { create as contentDisposition } from 'content-disposition';
import { type Request, type Response } from 'express';
import fresh from 'fresh';
import { z } from 'zod';
import { isImageId, KEY_PREFIX, readMetadata } from '#image-object';
import { type ByteRange, type ObjectHead, ObjectStore, StoreUnavailableError } from '#object-store';
import { Config } from '../config.js';
import { ProblemFilter } from '../problem/problem.filter.js';
import { ClientGoneError, Problem } from '../problem/problem.js';
import { parseByteRange } from './byte-range.js';
import {
  idOf,
  type Image,
  type ImagePage,
  keyOf,
  type ListedImage,
  toImage,
  toListedImage,
} from './image.js';

const LIMIT = 'limit has to be a whole number from 1 to 100';
const CURSOR = 'cursor has to be the nextCursor of an earlier page';
const LIST_QUERY = z.strictObject({
  limit: z
    .string(LIMIT)
    .regex(/^\d{1,3}$/, LIMIT)
    .transform(Number)
    .refine((limit) => limit >= 1 && limit <= 100, LIMIT)
    .default(50),
  cursor: z.string(CURSOR).refine(isImageId, CURSOR).optional(),
});

/** The images that are in the store, and how they are read over HTTP. */
@Injectable()
export class Images {
  constructor(
    private readonly store: ObjectStore,
    private readonly config: Config,
    private readonly problems: ProblemFilter,
  ) {}

  async info(id: string): Promise<Image> {
    const head = await this.store.head(keyOf(id));
    return toImage(head, readMetadata(head), this.config.publicUrl);
  }

  async list(query: Record<string, unknown>): Promise<ImagePage> {
    const parsed = LIST_QUERY.safeParse(query);
    if (!parsed.success) {
      throw new Problem(
        'INVALID_ARGUMENT',
        `${parsed.error.issues.map((issue) => issue.message).join('; ')}.`,
      );
    }
    const { limit, cursor } = parsed.data;
    const images: ListedImage[] = [];
    // From behind a folder's marker, which consoles make under the bare prefix: MinIO ends a page of one there.
    let after: string | undefined = cursor === undefined ? KEY_PREFIX : keyOf(cursor);
    let truncated = true;
    // Others may keep objects under our prefix; for each one that a page holds, another image is fetched.
    while (truncated && images.length < limit) {
      const page = await this.store.list({ prefix: KEY_PREFIX, after, limit: limit - images.length });
      for (const object of page.objects) {
        if (isImageId(idOf(object.key))) images.push(toListedImage(object, this.config.publicUrl));
      }
      after = page.objects.at(-1)?.key;
      truncated = page.truncated && after !== undefined;
    }
    return { images, nextCursor: truncated ? (images.at(-1)?.id ?? null) : null };
  }

  /** S3 deletes what isn't there with success, so a missing image is looked for first. */
  async remove(id: string): Promise<void> {
    const key = keyOf(id);
    await this.store.head(key);
    await this.store.delete(key);
  }

  /**
   * Sets the head of the answer and returns its body, undefined when it has none. A plain read is one call
   * to the store. Conditions and ranges are judged here, after a look at the object's head, since vendors
   * differ in what they understand of them; an image never changes in between.
   */
  async read(id: string, request: Request, response: Response): Promise<StreamableFile | undefined> {
    const key = keyOf(id);
    if (request.method === 'GET' && !isConditional(request)) return this.#stream(key, response);

    const head = await this.store.head(key);
    setHead(response, head);
    if (isFresh(request, head)) {
      response.status(304);
      return undefined;
    }
    if (request.method === 'HEAD') return undefined;
    return this.#stream(key, response, readRange(request, response, head));
  }

  async #stream(key: string, response: Response, range?: ByteRange): Promise<StreamableFile> {
    const gone = new AbortController();
    response.once('close', () => {
      gone.abort(new ClientGoneError('the client left before the image was read'));
    });
    const { head, body } = await this.store.get(key, { range, signal: gone.signal });
    // The head of a ranged answer tells the length of the range.
    setHead(response, head);
    // Nest's own handler answers 400, under the head that is set for the image already.
    return new StreamableFile(body).setErrorHandler((error) => {
      const failed = new StoreUnavailableError('the store broke off in the middle of an object', {
        cause: error,
      });
      this.problems.answer(failed, response);
    });
  }
}

/** Not Express's `request.fresh`: it takes `Cache-Control: no-cache`, which every fetch() adds, for a wish to have all. */
function isFresh({ headers }: Request, head: ObjectHead): boolean {
  return fresh(
    { 'if-none-match': headers['if-none-match'], 'if-modified-since': headers['if-modified-since'] },
    { etag: head.etag, 'last-modified': head.lastModified.toUTCString() },
  );
}

function isConditional(request: Request): boolean {
  return Object.keys(request.headers).some((name) => name === 'range' || name.startsWith('if-'));
}

function setHead(response: Response, head: ObjectHead): void {
  response.set({
    'Content-Type': head.contentType,
    'Content-Length': String(head.bytes),
    'Content-Disposition': contentDisposition(readMetadata(head).originalName, { type: 'inline' }),
    'Cache-Control': 'public, max-age=31536000, immutable',
    'X-Content-Type-Options': 'nosniff',
    'Accept-Ranges': 'bytes',
    ETag: head.etag,
    'Last-Modified': head.lastModified.toUTCString(),
  });
}

/**
 * The range that is asked for, with the status and Content-Range of its answer set.
 *
 * @throws Problem RANGE_NOT_SATISFIABLE when it lies outside the image.
 */
function readRange(request: Request, response: Response, head: ObjectHead): ByteRange | undefined {
  const ifRange = request.get('if-range');
  if (ifRange !== undefined && ifRange !== head.etag && Date.parse(ifRange) !== head.lastModified.getTime()) {
    return undefined;
  }
  const range = parseByteRange(request.get('range') ?? '', head.bytes);
  if (range === undefined) return undefined;
  if (range === 'unsatisfiable') {
    response.set('Content-Range', `bytes */${head.bytes}`);
    throw new Problem(
      'RANGE_NOT_SATISFIABLE',
      `The image has ${head.bytes} bytes, the first of which is byte 0.`,
    );
  }
  response.status(206).set('Content-Range', `bytes ${range.start}-${range.end}/${head.bytes}`);
  return range;
}
