import { randomBytes } from 'node:crypto';
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  type PutObjectCommandInput,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { type S3Options } from '#object-store';
import { describe, isGone, newClient } from '../store.js';
import { atMost } from '../time-limit.js';

/** Where the probes put their objects, and what clears them away. */
export class Bench {
  readonly s3: S3Client;
  readonly bucket: string;
  readonly prefix = `naru-doctor-${randomBytes(8).toString('hex')}/`;
  readonly #keys = new Set<string>();
  /** Keys by upload id. */
  readonly #uploads = new Map<string, string>();
  /** Keys of uploads whose id has not reached us. */
  readonly #begun = new Set<string>();
  #madeBucket = false;

  constructor(readonly options: S3Options) {
    this.s3 = newClient(options);
    this.bucket = options.bucket;
  }

  /** The key for an object of this name; whatever is put there is cleared away. */
  key(name: string): string {
    const key = this.prefix + name;
    this.#keys.add(key);
    return key;
  }

  at(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.bucket, Key: this.key(name) };
  }

  async makeBucket(abortSignal: AbortSignal): Promise<void> {
    await this.s3.send(new CreateBucketCommand({ Bucket: this.bucket }), { abortSignal });
    this.#madeBucket = true;
  }

  async put(
    name: string,
    Body: string,
    abortSignal: AbortSignal,
    input: Partial<PutObjectCommandInput> = {},
  ): Promise<void> {
    await this.s3.send(new PutObjectCommand({ ...this.at(name), Body, ...input }), { abortSignal });
  }

  async get(name: string, abortSignal: AbortSignal, Range?: string): Promise<string> {
    const { Body } = await this.s3.send(new GetObjectCommand({ ...this.at(name), Range }), { abortSignal });
    return (await Body?.transformToString()) ?? '';
  }

  /** A multipart upload of one S3 part, ready to be completed. */
  async begin(name: string, Body: string, abortSignal: AbortSignal) {
    const at = this.at(name);
    this.#begun.add(at.Key);
    const { UploadId = '' } = await this.s3.send(new CreateMultipartUploadCommand(at), { abortSignal });
    this.#uploads.set(UploadId, at.Key);
    this.#begun.delete(at.Key);
    const part = new UploadPartCommand({ ...at, UploadId, PartNumber: 1, Body });
    const { ETag } = await this.s3.send(part, { abortSignal });
    return { ...at, UploadId, MultipartUpload: { Parts: [{ PartNumber: 1, ETag }] } };
  }

  /** Resolves with what it could not clear away, in words; never rejects. */
  async clear(timeoutMs: number): Promise<string[]> {
    const end = Date.now() + timeoutMs;
    const left: string[] = [];
    // The interrupt that may have ended the probes must not end this.
    const unhindered = new AbortController().signal;
    const attempt = async (what: string, run: (signal: AbortSignal) => Promise<unknown>) => {
      try {
        await atMost(Math.max(1, end - Date.now()), unhindered, run);
      } catch (error) {
        if (!isGone(error)) left.push(`${what}: ${describe(error)}`);
      }
    };
    const each = async <Item>(items: Iterable<Item>, run: (item: Item) => Promise<void>) => {
      await Promise.all([...items].map(run));
    };
    await each(this.#begun, (key) =>
      attempt(`unfinished upload of ${key}`, (signal) => this.#findUpload(key, signal)),
    );
    await each(this.#uploads, ([UploadId, Key]) => {
      const abort = new AbortMultipartUploadCommand({ Bucket: this.bucket, Key, UploadId });
      return attempt(`unfinished upload of ${Key}`, (abortSignal) => this.s3.send(abort, { abortSignal }));
    });
    // Last, since an upload could still be completed until it was aborted.
    await each(this.#keys, (Key) => {
      const remove = new DeleteObjectCommand({ Bucket: this.bucket, Key });
      return attempt(Key, (abortSignal) => this.s3.send(remove, { abortSignal }));
    });
    if (this.#madeBucket) {
      const remove = new DeleteBucketCommand({ Bucket: this.bucket });
      await attempt(`bucket ${this.bucket}`, (abortSignal) => this.s3.send(remove, { abortSignal }));
    }
    this.s3.destroy();
    return left;
  }

  async #findUpload(key: string, abortSignal: AbortSignal): Promise<void> {
    const list = new ListMultipartUploadsCommand({ Bucket: this.bucket, Prefix: key });
    const { Uploads = [] } = await this.s3.send(list, { abortSignal });
    for (const { Key, UploadId } of Uploads) {
      if (Key === key && UploadId) this.#uploads.set(UploadId, key);
    }
  }
}
