import { closeSync, createReadStream, createWriteStream, fstatSync, openSync, readSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** All that is known of an object, or of an S3 part, besides its bytes. */
export interface ObjectHead {
  readonly key: string;
  readonly bytes: number;
  /** Without quotes. */
  readonly etag: string;
  /** Milliseconds since 1970. */
  readonly lastModifiedMs: number;
  /** Headers to answer a read with, names in lower case: content-type, x-amz-meta-… */
  readonly headers: Readonly<Record<string, string>>;
}

/** Closes every file: data, head as JSON, then this: the head's length in four bytes, and a mark. */
const MARK = Buffer.from('NaruObj1');
const FOOTER_BYTES = 4 + MARK.length;
/** Holds nearly every head, so that one read is enough. */
const TAIL_BYTES = 2048;
/** Held per write or read in flight, at most about twice that. */
const BUFFER_BYTES = 256 * 1024;

/**
 * Writes a new file: the bytes of `source` in one pass, then the head that `seal` makes of their
 * count. Rejects with the error of either, or the signal's reason, and leaves no file then.
 */
export async function writeObjectFile(
  path: string,
  source: AsyncIterable<Buffer>,
  seal: (bytes: number) => ObjectHead,
  signal: AbortSignal,
): Promise<ObjectHead> {
  let head: ObjectHead | undefined;
  async function* content(): AsyncGenerator<Buffer, void> {
    let bytes = 0;
    for await (const chunk of source) {
      bytes += chunk.length;
      yield chunk;
    }
    head = seal(bytes);
    yield encodeTail(head);
  }
  try {
    await pipeline(content, createWriteStream(path, { flags: 'wx', highWaterMark: BUFFER_BYTES }), {
      signal,
    });
    if (!head) throw new Error('the file was closed before its end');
    return head;
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

/**
 * An object open for reading. It goes on showing the same bytes when the object is replaced or deleted.
 *
 * Opening blocks: on a file that the system has cached, which is the rule here, these calls take some
 * 20 µs; through the thread pool they cost several times that.
 */
export class OpenObject {
  private inUse = true;

  private constructor(
    private readonly fd: number,
    readonly head: ObjectHead,
  ) {}

  /** Undefined if there is no such file, or it is not a whole one. */
  static open(path: string): OpenObject | undefined {
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    try {
      const head = readHead(fd);
      if (head) return new OpenObject(fd, head);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    return undefined;
  }

  /** First to last byte, inclusive. Closes the object at its end, or when it is destroyed. */
  read(start: number, end: number): Readable {
    this.inUse = false;
    return createReadStream('', { fd: this.fd, start, end, highWaterMark: BUFFER_BYTES });
  }

  /** All of it. Closes the object, also when it is not read to its end. */
  async *content(): AsyncGenerator<Buffer, void> {
    if (this.head.bytes === 0) this.close();
    else yield* this.read(0, this.head.bytes - 1) as AsyncIterable<Buffer>;
  }

  /** For when it is not read; after `read`, does nothing. */
  close(): void {
    if (this.inUse) closeSync(this.fd);
    this.inUse = false;
  }
}

/** As `OpenObject.open(path)?.head`, and closed again. */
export function readObjectHead(path: string): ObjectHead | undefined {
  const object = OpenObject.open(path);
  object?.close();
  return object?.head;
}

function encodeTail(head: ObjectHead): Buffer {
  const json = Buffer.from(JSON.stringify(head));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(json.length);
  return Buffer.concat([json, length, MARK]);
}

function readHead(fd: number): ObjectHead | undefined {
  const { size } = fstatSync(fd);
  let tail = readTail(fd, size, TAIL_BYTES);
  if (tail.length < FOOTER_BYTES || !tail.subarray(-MARK.length).equals(MARK)) return undefined;
  const jsonBytes = tail.readUInt32BE(tail.length - FOOTER_BYTES);
  if (jsonBytes + FOOTER_BYTES > size) return undefined;
  if (jsonBytes + FOOTER_BYTES > tail.length) tail = readTail(fd, size, jsonBytes + FOOTER_BYTES);
  return JSON.parse(
    tail.toString('utf8', tail.length - FOOTER_BYTES - jsonBytes, tail.length - FOOTER_BYTES),
  ) as ObjectHead;
}

function readTail(fd: number, size: number, wanted: number): Buffer {
  const tail = Buffer.allocUnsafe(Math.min(wanted, size));
  const read = readSync(fd, tail, 0, tail.length, size - tail.length);
  return tail.subarray(0, read);
}
