import type { IncomingMessage } from 'node:http';
import { S3Error } from '../s3-error.js';

/** The longest key, in bytes of UTF-8. */
const KEY_BYTES = 1024;

const CONTROL = /[\u0000-\u001f\u007f]/;

/** A request as S3 sees it: a path-style address taken apart, and headers by lower-case name. */
export class S3Request {
  readonly method: string;
  /** As sent, still percent-encoded, without the query. */
  readonly path: string;
  readonly bucket: string | undefined;
  readonly key: string | undefined;
  readonly query: URLSearchParams;
  private readonly headers = new Map<string, string>();

  /** Throws InvalidURI and KeyTooLongError. */
  constructor(readonly message: IncomingMessage) {
    this.method = message.method ?? 'GET';
    const url = message.url ?? '/';
    const queryAt = url.indexOf('?');
    this.path = queryAt === -1 ? url : url.slice(0, queryAt);
    this.query = new URLSearchParams(queryAt === -1 ? '' : url.slice(queryAt + 1));
    // Not `new URL`: it would resolve `..` and so turn one key into another.
    const [, bucket, key] = /^\/([^/]*)(?:\/(.*))?$/s.exec(decode(this.path)) ?? [];
    if (bucket === undefined) throw new S3Error('InvalidURI');
    this.bucket = bucket || undefined;
    this.key = key || undefined;
    if (this.key !== undefined) assertKey(this.key);
    for (const [name, value] of this.query) {
      if (isAmzHeader(name)) this.headers.set(name.toLowerCase(), toHeaderValue(value));
    }
    for (const [name, values] of Object.entries(message.headersDistinct)) {
      this.headers.set(name, values?.join(',') ?? '');
    }
  }

  /** Several of one name are joined by a comma. A presigned URL may carry an `x-amz-` header in its query. */
  header(name: string): string | undefined {
    return this.headers.get(name);
  }

  headerNames(): Iterable<string> {
    return this.headers.keys();
  }

  /** As if the header had not been sent. */
  passOver(name: string): void {
    this.headers.delete(name);
  }

  /** As `header`, without the query's. */
  sentHeader(name: string): string | undefined {
    return this.message.headersDistinct[name]?.join(',');
  }

  /** The parameter, or undefined; throws InvalidArgument unless it is a whole number within the bounds. */
  integer(parameter: string, { min, max }: { min: number; max: number }): number | undefined {
    const value = this.query.get(parameter);
    if (value === null) return undefined;
    const number = /^\d{1,10}$/.test(value) ? Number(value) : NaN;
    if (!(number >= min && number <= max)) {
      throw new S3Error('InvalidArgument', `${parameter} has to be a whole number from ${min} to ${max}.`);
    }
    return number;
  }
}

/** Whether a parameter of the query is a header in disguise. */
export function isAmzHeader(parameter: string): boolean {
  return parameter.toLowerCase().startsWith('x-amz-');
}

/** As Node writes and reads headers: one character per byte of UTF-8. Throws InvalidArgument. */
export function toHeaderValue(value: string): string {
  if (CONTROL.test(value)) throw new S3Error('InvalidArgument', 'A header cannot hold control characters.');
  return Buffer.from(value).toString('latin1');
}

export function assertKey(key: string): void {
  if (Buffer.byteLength(key) > KEY_BYTES) throw new S3Error('KeyTooLongError');
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw new S3Error('InvalidURI');
  }
}
