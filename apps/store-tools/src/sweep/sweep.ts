import {
  AbortMultipartUploadCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { hasMetadata, isImageKey, KEY_PREFIX } from '#image-object';
import { describe, isGone } from '../store.js';
import { atMost } from '../time-limit.js';

const REQUEST_MS = 30_000;
const AT_ONCE = 8;

export interface SweepOptions {
  /** Only what was begun, or stored, before. */
  readonly before: Date;
  readonly dryRun: boolean;
  /** Also look for images that lack Naru's metadata. */
  readonly metadata: boolean;
}

export interface SweptUpload {
  readonly key: string;
  readonly uploadId: string;
  readonly initiated: string;
  /** `gone`: completed or aborted by somebody else meanwhile. */
  readonly outcome: 'aborted' | 'gone' | 'would-abort' | 'failed';
  readonly error?: string;
}

export interface Orphan {
  readonly key: string;
  readonly bytes: number;
  readonly lastModified: string;
  readonly reason: 'not an image id' | 'no metadata of Naru';
}

export interface SweepResult {
  readonly bucket: string;
  readonly before: string;
  readonly dryRun: boolean;
  readonly uploads: readonly SweptUpload[];
  /** Unfinished uploads that were left: too young, or of keys that are not Naru's. */
  readonly left: { readonly young: number; readonly foreign: number };
  readonly images: number;
  readonly orphans: readonly Orphan[];
}

interface Unfinished {
  readonly key: string;
  readonly uploadId: string;
  readonly initiated: Date;
}

interface Listed {
  readonly key: string;
  readonly bytes: number;
  readonly lastModified: Date;
}

/**
 * One pass over a bucket. An upload is known by its age alone, so that no lock is needed: an upload that is older than
 * any can last is nobody's, and one that somebody else aborts meanwhile is as good as aborted by us.
 *
 * Objects are never deleted: without a database nobody can say that an image with a proper key is nobody's.
 */
export class Sweep {
  constructor(
    private readonly s3: S3Client,
    private readonly bucket: string,
    private readonly options: SweepOptions,
  ) {}

  /** @throws what the store answers when it can't be listed. */
  async run(signal: AbortSignal): Promise<SweepResult> {
    const uploads: SweptUpload[] = [];
    const left = { young: 0, foreign: 0 };
    for await (const page of this.#unfinished(signal)) {
      const ours = page.filter(({ key }) => isImageKey(key));
      const old = ours.filter(({ initiated }) => initiated < this.options.before);
      left.foreign += page.length - ours.length;
      left.young += ours.length - old.length;
      uploads.push(...(await inTurns(old, (upload) => this.#abort(upload, signal))));
    }
    const orphans: Orphan[] = [];
    let images = 0;
    for await (const page of this.#objects(signal)) {
      const reasons = await inTurns(page, (object) => this.#orphaned(object, signal));
      page.forEach(({ key, bytes, lastModified }, index) => {
        const reason = reasons[index];
        if (reason) orphans.push({ key, bytes, lastModified: lastModified.toISOString(), reason });
        else images += 1;
      });
    }
    return {
      bucket: this.bucket,
      before: this.options.before.toISOString(),
      dryRun: this.options.dryRun,
      uploads,
      left,
      images,
      orphans,
    };
  }

  async #abort({ key, uploadId, initiated }: Unfinished, signal: AbortSignal): Promise<SweptUpload> {
    const swept = { key, uploadId, initiated: initiated.toISOString() };
    if (this.options.dryRun) return { ...swept, outcome: 'would-abort' };
    const abort = new AbortMultipartUploadCommand({ Bucket: this.bucket, Key: key, UploadId: uploadId });
    try {
      await atMost(REQUEST_MS, signal, (abortSignal) => this.s3.send(abort, { abortSignal }));
      return { ...swept, outcome: 'aborted' };
    } catch (error) {
      signal.throwIfAborted();
      if (isGone(error)) return { ...swept, outcome: 'gone' };
      return { ...swept, outcome: 'failed', error: describe(error) };
    }
  }

  /** Why the object is no image of ours, if it isn't. */
  async #orphaned({ key, lastModified }: Listed, signal: AbortSignal): Promise<Orphan['reason'] | undefined> {
    if (!isImageKey(key)) return 'not an image id';
    if (!this.options.metadata || lastModified >= this.options.before) return undefined;
    const head = new HeadObjectCommand({ Bucket: this.bucket, Key: key });
    try {
      const { Metadata = {} } = await atMost(REQUEST_MS, signal, (abortSignal) =>
        this.s3.send(head, { abortSignal }),
      );
      return hasMetadata({ metadata: Metadata }) ? undefined : 'no metadata of Naru';
    } catch (error) {
      // Deleted since it was listed.
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  /** Without a prefix, since MinIO takes one for a whole key here. */
  async *#unfinished(signal: AbortSignal): AsyncGenerator<Unfinished[]> {
    const seen = new Set<string>();
    let marker: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } = {};
    for (;;) {
      const list = new ListMultipartUploadsCommand({ Bucket: this.bucket, ...marker });
      const page = await atMost(REQUEST_MS, signal, (abortSignal) => this.s3.send(list, { abortSignal }));
      const fresh = (page.Uploads ?? []).filter(({ UploadId = '' }) => !seen.has(UploadId));
      for (const { UploadId = '' } of fresh) seen.add(UploadId);
      yield fresh.map(({ Key = '', UploadId = '', Initiated }) => ({
        key: Key,
        uploadId: UploadId,
        // What has no date can't be called old.
        initiated: Initiated ?? new Date(8.64e15),
      }));
      // A store that doesn't know the markers repeats its first page.
      if (!page.IsTruncated || fresh.length === 0) return;
      marker = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker };
    }
  }

  async *#objects(signal: AbortSignal): AsyncGenerator<Listed[]> {
    // From behind a folder's marker, which consoles make under the bare prefix.
    let after = KEY_PREFIX;
    for (;;) {
      const list = new ListObjectsCommand({ Bucket: this.bucket, Prefix: KEY_PREFIX, Marker: after });
      const page = await atMost(REQUEST_MS, signal, (abortSignal) => this.s3.send(list, { abortSignal }));
      const objects = (page.Contents ?? []).map(({ Key = '', Size = 0, LastModified = new Date() }) => ({
        key: Key,
        bytes: Size,
        lastModified: LastModified,
      }));
      yield objects;
      const last = objects.at(-1)?.key;
      if (!page.IsTruncated || last === undefined || last === after) return;
      after = last;
    }
  }
}

/** Eight at a time, so that a long list neither takes all day nor all of the store. */
async function inTurns<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let start = 0; start < items.length; start += AT_ONCE) {
    results.push(...(await Promise.all(items.slice(start, start + AT_ONCE).map(work))));
  }
  return results;
}
