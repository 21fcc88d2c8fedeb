import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { S3Error } from '../s3-error.js';
import { hasCode, type DataDirectory } from './data-directory.js';
import { OpenObject, readObjectHead, writeObjectFile, type ObjectHead } from './object-file.js';

const SMALLEST_PART_BYTES = 5 * 1024 * 1024;

export interface Upload {
  readonly id: string;
  readonly key: string;
  readonly initiatedMs: number;
}

export interface Part {
  readonly number: number;
  /** Without quotes. */
  readonly etag: string;
  /** As the headers they were sent in. */
  readonly checksums: Readonly<Record<string, string>>;
}

/** Where a multipart upload is meant to go. */
export interface UploadAddress {
  readonly bucket: string;
  readonly key: string;
  readonly uploadId: string;
}

/** Multipart uploads: begun, filled in any order, and then completed or aborted once. */
export class Uploads {
  /** The last of those who complete or abort an upload, by upload id; each waits for the one before. */
  private readonly ending = new Map<string, Promise<unknown>>();

  constructor(private readonly directory: DataDirectory) {}

  /** Resolves with the upload id. Ids sort by the time they were made. */
  async create(bucket: string, key: string, headers: Readonly<Record<string, string>>): Promise<string> {
    this.directory.requireBucket(bucket);
    const now = Date.now();
    const id = now.toString(16).padStart(12, '0') + randomBytes(10).toString('hex');
    const fresh = this.directory.temporaryPath();
    await mkdir(fresh);
    const head = { key, bytes: 0, etag: '', lastModifiedMs: now, headers };
    await writeObjectFile(join(fresh, 'head'), nothing(), () => head, new AbortController().signal);
    await rename(fresh, join(this.directory.uploadsPath(bucket), id));
    return id;
  }

  /** Throws NoSuchUpload, also if the upload ended meanwhile. */
  async putPart(
    address: UploadAddress,
    number: number,
    source: AsyncIterable<Buffer>,
    seal: (bytes: number) => ObjectHead,
    signal: AbortSignal,
  ): Promise<ObjectHead> {
    this.require(address);
    const temporary = this.directory.temporaryPath();
    const head = await writeObjectFile(temporary, source, seal, signal);
    try {
      signal.throwIfAborted();
      await rename(temporary, this.partPath(address, number));
    } catch (error) {
      await rm(temporary, { force: true });
      if (hasCode(error, 'ENOENT')) throw new S3Error('NoSuchUpload');
      throw error;
    }
    return head;
  }

  /**
   * Makes the parts named into one object. Throws NoSuchUpload, InvalidPartOrder, InvalidPart,
   * EntityTooSmall and PreconditionFailed; the upload is then as it was.
   */
  async complete(
    address: UploadAddress,
    parts: readonly Part[],
    options: { ifAbsent: boolean; signal: AbortSignal },
  ): Promise<ObjectHead> {
    return await this.oneAtATime(address.uploadId, async () => {
      const { headers } = this.require(address);
      this.validate(address, parts);
      const seal = (bytes: number): ObjectHead => ({
        key: address.key,
        bytes,
        etag: multipartEtag(parts),
        lastModifiedMs: Date.now(),
        headers,
      });
      const head = await this.directory.put(
        address.bucket,
        address.key,
        this.content(address, parts),
        seal,
        options,
      );
      await this.directory.discard(this.path(address));
      return head;
    });
  }

  /** Waits for one who completes it; then, as for any upload that is not there, throws NoSuchUpload. */
  async abort(address: UploadAddress): Promise<void> {
    await this.oneAtATime(address.uploadId, async () => {
      this.require(address);
      await this.directory.discard(this.path(address));
    });
  }

  /** By number. Throws NoSuchUpload. */
  async parts(address: UploadAddress): Promise<{ number: number; head: ObjectHead }[]> {
    this.require(address);
    const names = (await readdir(this.path(address))).filter((name) => name.startsWith('part-')).sort();
    return names.flatMap((name) => {
      const head = readObjectHead(join(this.path(address), name));
      return head ? [{ number: Number(name.slice('part-'.length)), head }] : [];
    });
  }

  /** All of a bucket, in no order. Throws NoSuchBucket. */
  async list(bucket: string): Promise<Upload[]> {
    this.directory.requireBucket(bucket);
    const folder = this.directory.uploadsPath(bucket);
    return (await readdir(folder)).flatMap((id) => {
      const head = readObjectHead(join(folder, id, 'head'));
      return head ? [{ id, key: head.key, initiatedMs: head.lastModifiedMs }] : [];
    });
  }

  /** Throws NoSuchBucket and NoSuchUpload, also for an upload of another key. */
  private require(address: UploadAddress): ObjectHead {
    this.directory.requireBucket(address.bucket);
    const head = readObjectHead(join(this.path(address), 'head'));
    if (head?.key !== address.key) throw new S3Error('NoSuchUpload');
    return head;
  }

  private validate(address: UploadAddress, parts: readonly Part[]): void {
    parts.forEach((part, index) => {
      if (part.number <= (parts[index - 1]?.number ?? 0)) throw new S3Error('InvalidPartOrder');
    });
    parts.forEach((part, index) => {
      const head = readObjectHead(this.partPath(address, part.number));
      if (!head || !isSame(head, part)) throw new S3Error('InvalidPart');
      if (head.bytes < SMALLEST_PART_BYTES && index < parts.length - 1) throw new S3Error('EntityTooSmall');
    });
  }

  private async *content(address: UploadAddress, parts: readonly Part[]): AsyncGenerator<Buffer, void> {
    for (const part of parts) {
      const file = OpenObject.open(this.partPath(address, part.number));
      try {
        // It may have been sent again since it was looked at.
        if (!file || !isSame(file.head, part)) throw new S3Error('InvalidPart');
        yield* file.content();
      } finally {
        file?.close();
      }
    }
  }

  private path({ bucket, uploadId }: UploadAddress): string {
    if (!/^[0-9a-f]{32}$/.test(uploadId)) throw new S3Error('NoSuchUpload');
    return join(this.directory.uploadsPath(bucket), uploadId);
  }

  private partPath(address: UploadAddress, number: number): string {
    return join(this.path(address), `part-${String(number).padStart(5, '0')}`);
  }

  // Else an abort that was answered could be followed by the object, from one who completes it.
  private async oneAtATime<T>(uploadId: string, work: () => Promise<T>): Promise<T> {
    const before = this.ending.get(uploadId) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.ending.set(uploadId, mine);
    try {
      return await mine;
    } finally {
      if (this.ending.get(uploadId) === mine) this.ending.delete(uploadId);
    }
  }
}

function isSame(head: ObjectHead, part: Part): boolean {
  return (
    head.etag === part.etag &&
    Object.entries(part.checksums).every(([name, value]) => head.headers[name] === value)
  );
}

/** The MD5 of the parts' MD5s and how many there are, as S3 has it. */
function multipartEtag(parts: readonly Part[]): string {
  const md5s = createHash('md5');
  for (const { etag } of parts) md5s.update(Buffer.from(etag, 'hex'));
  return `${md5s.digest('hex')}-${parts.length}`;
}

async function* nothing(): AsyncGenerator<Buffer, void> {}
