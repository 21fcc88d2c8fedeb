import { pipeline } from 'node:stream/promises';
import { sendEmpty } from '../http/answer.js';
import { toHeaderValue, type S3Request } from '../http/s3-request.js';
import { S3Error } from '../s3-error.js';
import type { ObjectHead } from '../storage/object-file.js';
import type { Exchange } from './exchange.js';
import { headersOf, quoted } from './object-headers.js';
import { isNotModified } from './preconditions.js';

interface Answer {
  readonly status: 200 | 206 | 304;
  readonly headers: Readonly<Record<string, string>>;
  /** First and last byte of the body, if it has one. */
  readonly range?: Range | undefined;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

export async function getObject({ request, response, bucket, key, directory }: Exchange): Promise<void> {
  const object = directory.openObject(bucket, key);
  try {
    const { status, headers, range } = answerTo(request, object.head);
    if (!range) {
      sendEmpty(response, status, headers);
      return;
    }
    response.writeHead(status, headers);
    await pipeline(object.read(range.start, range.end), response);
  } finally {
    object.close();
  }
}

export function headObject({ request, response, bucket, key, directory }: Exchange): void {
  const object = directory.openObject(bucket, key);
  object.close();
  const { status, headers } = answerTo(request, object.head);
  sendEmpty(response, status, headers);
}

/** Throws PreconditionFailed and InvalidRange. */
function answerTo(request: S3Request, head: ObjectHead): Answer {
  const headers = { ...headersOf(head), ...overrides(request) };
  if (isNotModified(request, head)) return { status: 304, headers };
  const range = requestedRange(request, head);
  if (!range) {
    const whole = head.bytes > 0 ? { start: 0, end: head.bytes - 1 } : undefined;
    return { status: 200, headers: { ...headers, 'content-length': String(head.bytes) }, range: whole };
  }
  const length = String(range.end - range.start + 1);
  const contentRange = `bytes ${range.start}-${range.end}/${head.bytes}`;
  return {
    status: 206,
    headers: { ...headers, 'content-length': length, 'content-range': contentRange },
    range,
  };
}

/**
 * The one range asked for (RFC 9110, section 14.1.2). Undefined, which means the whole object, if there is
 * none, if it is malformed, or if there are several, which S3 does not serve. Not range-parser: it
 * calls a suffix longer than the object unsatisfiable, where the whole object is meant.
 */
function requestedRange(request: S3Request, head: ObjectHead): Range | undefined {
  const header = request.header('range');
  const ifRange = request.header('if-range');
  if (header === undefined || (ifRange !== undefined && ifRange !== quoted(head.etag))) return undefined;
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.replaceAll(' ', '')) ?? [];
  if (!first && !last) return undefined;
  const start = first ? Number(first) : Math.max(0, head.bytes - Number(last));
  const end = first && last ? Math.min(Number(last), head.bytes - 1) : head.bytes - 1;
  if (first && last && Number(last) < start) return undefined;
  if (start > end) {
    throw new S3Error('InvalidRange', undefined, { 'content-range': `bytes */${head.bytes}` });
  }
  return { start, end };
}

/** `response-content-type` and its like: a presigned URL may say how the answer is to be read. */
function overrides(request: S3Request): Record<string, string> {
  const prefix = 'response-';
  return Object.fromEntries(
    [...request.query]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => [name.slice(prefix.length), toHeaderValue(value)]),
  );
}
