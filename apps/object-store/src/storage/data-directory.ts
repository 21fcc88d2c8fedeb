import { randomUUID } from 'node:crypto';
import { existsSync, renameSync } from 'node:fs';
import { link, mkdir, readdir, readFile, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { S3Error } from '../s3-error.js';
import { binaryKeyOf, mayStartWith, nameOf, toBinary } from './key-name.js';
import { OpenObject, readObjectHead, writeObjectFile, type ObjectHead } from './object-file.js';

/**
 * Everything the store keeps:
 *
 *     buckets/BUCKET/objects/NAME          an object: its bytes, then its head (key, ETag, headers)
 *     buckets/BUCKET/uploads/ID/head       a multipart upload begun, and its S3 parts, in the same form
 *     buckets/BUCKET/uploads/ID/part-00001
 *     naru-temporary/                      what is not whole yet; emptied at every start
 *     process-id                           of the store that has the directory: a second one would take the
 *                                          first one's unfinished files away
 *
 * One file per object, head behind the bytes, so that a body is written in one pass although its MD5
 * is known last, and one rename makes bytes and head visible together. A reader holds the file open
 * and is not disturbed by what replaces or deletes it. The file system is the index: nothing has to be
 * rebuilt at a start, nothing can disagree with it.
 *
 * What that costs: a page of a listing reads all names of the bucket, and the head of each object on
 * the page (some 10 ms for 10,000 objects; fine for a machine of one's own, wrong for millions).
 * Completing a multipart upload copies its parts. There is no fsync: a killed process loses nothing it
 * answered for, but a power cut may lose the last seconds.
 */
export class DataDirectory {
  private constructor(private readonly root: string) {}

  /** Makes the directory if there is none; clears what a killed process left behind. Throws when a living one has it. */
  static async open(root: string): Promise<DataDirectory> {
    const directory = new DataDirectory(root);
    await mkdir(root, { recursive: true });
    await directory.claim();
    await rm(join(root, 'naru-temporary'), { recursive: true, force: true });
    await mkdir(join(root, 'naru-temporary'), { recursive: true });
    await mkdir(join(root, 'buckets'), { recursive: true });
    for (const bucket of await readdir(join(root, 'buckets'))) {
      // Its deletion was cut short.
      if (isBucketName(bucket) && !directory.hasBucket(bucket))
        await directory.discard(directory.bucketPath(bucket));
    }
    return directory;
  }

  /** Lets another process have the directory. */
  async close(): Promise<void> {
    await rm(this.claimPath, { force: true });
  }

  /** By name. */
  async buckets(): Promise<{ name: string; createdMs: number }[]> {
    const names = await readdir(join(this.root, 'buckets'));
    return await Promise.all(
      names
        .filter((name) => this.hasBucket(name))
        .sort()
        // Nothing is added to this folder later, so it was changed last when it was made.
        .map(async (name) => ({ name, createdMs: (await stat(this.bucketPath(name))).mtimeMs })),
    );
  }

  /** Throws NoSuchBucket. Cheap: one call that the system answers from memory. */
  requireBucket(bucket: string): void {
    if (!this.hasBucket(bucket)) throw new S3Error('NoSuchBucket');
  }

  /** Throws InvalidBucketName and BucketAlreadyOwnedByYou. */
  async createBucket(bucket: string): Promise<void> {
    if (!isBucketName(bucket)) throw new S3Error('InvalidBucketName');
    const fresh = this.temporaryPath();
    await mkdir(join(fresh, 'objects'), { recursive: true });
    await mkdir(join(fresh, 'uploads'));
    try {
      await rename(fresh, this.bucketPath(bucket));
    } catch (error) {
      await rm(fresh, { recursive: true });
      if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) throw new S3Error('BucketAlreadyOwnedByYou');
      throw error;
    }
  }

  /** Unfinished multipart uploads go with it. Throws NoSuchBucket and BucketNotEmpty. */
  async deleteBucket(bucket: string): Promise<void> {
    try {
      // This is the moment: it fails if an object is there, and none can be put once it succeeded.
      await rmdir(join(this.bucketPath(bucket), 'objects'));
    } catch (error) {
      if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) throw new S3Error('BucketNotEmpty');
      if (hasCode(error, 'ENOENT')) throw new S3Error('NoSuchBucket');
      throw error;
    }
    await this.discard(this.bucketPath(bucket));
  }

  /**
   * Puts an object in place of any other with that key once `source` has ended, and never a part of it.
   * Throws NoSuchBucket; PreconditionFailed if `ifAbsent` and it is not, or if the one there is not what `ifMatch` accepts,
   * and NoSuchKey if there is none; and what source and seal throw.
   */
  async put(
    bucket: string,
    key: string,
    source: AsyncIterable<Buffer>,
    seal: (bytes: number) => ObjectHead,
    {
      ifAbsent,
      ifMatch,
      signal,
    }: { ifAbsent: boolean; ifMatch?: ((head: ObjectHead) => boolean) | undefined; signal: AbortSignal },
  ): Promise<ObjectHead> {
    this.requireBucket(bucket);
    // Known already: spare the client from sending the body. What counts is the link below.
    if (ifAbsent && existsSync(this.objectPath(bucket, key))) throw new S3Error('PreconditionFailed');
    const temporary = this.temporaryPath();
    const head = await writeObjectFile(temporary, source, seal, signal);
    try {
      signal.throwIfAborted();
      // A link, unlike a rename, fails if the name is taken: one of many at once wins.
      if (ifAbsent) await link(temporary, this.objectPath(bucket, key));
      else if (ifMatch) this.replace(bucket, key, temporary, ifMatch);
      else await rename(temporary, this.objectPath(bucket, key));
    } catch (error) {
      await rm(temporary, { force: true });
      if (hasCode(error, 'EEXIST')) throw new S3Error('PreconditionFailed');
      if (hasCode(error, 'ENOENT')) throw new S3Error('NoSuchBucket');
      throw error;
    }
    if (ifAbsent) await rm(temporary, { force: true });
    return head;
  }

  /** At once, so that nothing comes between the look and the rename. */
  private replace(
    bucket: string,
    key: string,
    temporary: string,
    isExpected: (head: ObjectHead) => boolean,
  ): void {
    const head = this.headObject(bucket, key);
    if (!head) throw new S3Error('NoSuchKey');
    if (!isExpected(head)) throw new S3Error('PreconditionFailed');
    renameSync(temporary, this.objectPath(bucket, key));
  }

  /** Throws NoSuchBucket and NoSuchKey. */
  openObject(bucket: string, key: string): OpenObject {
    const object = OpenObject.open(this.objectPath(bucket, key));
    if (object) return object;
    this.requireBucket(bucket);
    throw new S3Error('NoSuchKey');
  }

  /** Undefined if there is no such object, any more. */
  headObject(bucket: string, key: string): ObjectHead | undefined {
    return readObjectHead(this.objectPath(bucket, key));
  }

  /** Succeeds whether or not there is such an object. Throws NoSuchBucket. */
  async deleteObject(bucket: string, key: string): Promise<void> {
    this.requireBucket(bucket);
    await rm(this.objectPath(bucket, key), { force: true });
  }

  /** The keys that start with the prefix, as binary strings, in no order. Throws NoSuchBucket. */
  async binaryKeys(bucket: string, prefix: string): Promise<string[]> {
    this.requireBucket(bucket);
    const folder = join(this.bucketPath(bucket), 'objects');
    const names = (await readdir(folder)).filter(mayStartWith(prefix));
    const start = toBinary(prefix);
    const keys = names.map(
      (name) => binaryKeyOf(name) ?? toBinary(readObjectHead(join(folder, name))?.key ?? ''),
    );
    return keys.filter((key) => key !== '' && key.startsWith(start));
  }

  /** Where the multipart uploads of a bucket are. */
  uploadsPath(bucket: string): string {
    return join(this.bucketPath(bucket), 'uploads');
  }

  /** A path nobody else uses, on the same file system, cleared at the next start. */
  temporaryPath(): string {
    return join(this.root, 'naru-temporary', randomUUID());
  }

  /** Takes a folder away at once, then its content. Rejects with ENOENT if there is none. */
  async discard(folder: string): Promise<void> {
    const temporary = this.temporaryPath();
    await rename(folder, temporary);
    await rm(temporary, { recursive: true });
  }

  private get claimPath(): string {
    return join(this.root, 'process-id');
  }

  private async claim(): Promise<void> {
    try {
      await writeFile(this.claimPath, String(process.pid), { flag: 'wx' });
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
      const holder = Number(await readFile(this.claimPath, 'utf8'));
      if (holder !== process.pid && isAlive(holder)) {
        throw new Error(
          `${this.root} is in use by the object store with process id ${holder}; ` +
            `give this one another directory, or delete ${this.claimPath} if that is some other program`,
        );
      }
      await writeFile(this.claimPath, String(process.pid));
    }
  }

  private hasBucket(bucket: string): boolean {
    return isBucketName(bucket) && existsSync(join(this.bucketPath(bucket), 'objects'));
  }

  private bucketPath(bucket: string): string {
    // The one place where a name from outside becomes part of a path as it is.
    if (!isBucketName(bucket)) throw new S3Error('NoSuchBucket');
    return join(this.root, 'buckets', bucket);
  }

  private objectPath(bucket: string, key: string): string {
    return join(this.bucketPath(bucket), 'objects', nameOf(key));
  }
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html */
function isBucketName(name: string): boolean {
  return /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name) && !name.includes('..');
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // EPERM: alive, and somebody else's.
    return hasCode(error, 'EPERM');
  }
}

/** Whether it is an error of the system with one of these codes. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return codes.includes(String((error as { code?: unknown } | undefined)?.code));
}
