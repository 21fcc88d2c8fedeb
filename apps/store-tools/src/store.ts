import { S3Client, S3ServiceException } from '@aws-sdk/client-s3';
import { type S3Options, TimeIsUpError } from '#object-store';
import { atMost } from './time-limit.js';

const MEET_MS = 5_000;

/** Something that answers, but not as a store: a setting is wrong, and no waiting mends it. */
export class NoStoreError extends Error {
  override readonly name = 'NoStoreError';
}

/** A client as the service's own is, but that one probe is one request: two tries, for a clock that is wrong. */
export function newClient(options: S3Options): S3Client {
  return new S3Client({
    region: options.region,
    forcePathStyle: options.forcePathStyle,
    maxAttempts: 2,
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: { connectionTimeout: options.connectTimeoutMs },
    // What it would say is said by us.
    logger: { debug: ignore, info: ignore, warn: ignore, error: ignore },
  });
}

/** As the client addresses it. */
export function bucketUrl({ endpoint, region, bucket, forcePathStyle }: S3Options): URL {
  const url = new URL(endpoint ?? `https://s3.${region}.amazonaws.com`);
  if (forcePathStyle) url.pathname = `${url.pathname.replace(/\/$/, '')}/${bucket}`;
  else url.hostname = `${bucket}.${url.hostname}`;
  return url;
}

/**
 * Asks without a signature, to see who answers. Resolves with how far the store's clock is ahead of ours in ms,
 * undefined if it doesn't say.
 *
 * @throws NoStoreError; any other error when nobody answers.
 */
export async function meet(options: S3Options, signal: AbortSignal): Promise<number | undefined> {
  const url = bucketUrl(options);
  const { response, body } = await atMost(MEET_MS, signal, async (signal) => {
    const response = await fetch(url, { redirect: 'manual', signal });
    return { response, body: await readStart(response) };
  });
  // However a store refuses, it does so in S3's XML; one that lets anybody list answers with a list.
  const isStore = /<(Error|ListBucketResult)[\s>]/.test(body) || response.headers.has('x-amz-request-id');
  if (!isStore) {
    const what = `${url.origin} answers ${response.status}, but not as an S3 store does`;
    if (response.status >= 500) throw new Error(what);
    throw new NoStoreError(`${what}; S3_ENDPOINT has to be the address of its S3 API.`);
  }
  const date = Date.parse(response.headers.get('date') ?? '');
  return Number.isNaN(date) ? undefined : date - Date.now();
}

/** One line, for a person: no secret, no stack. */
export function describe(error: unknown): string {
  if (error instanceof S3ServiceException) {
    const status = error.$metadata.httpStatusCode;
    return firstLine(`${error.name}${status === undefined ? '' : ` (${status})`}: ${error.message}`);
  }
  if (isSilence(error)) return `no answer within ${error.ms / 1000} s`;
  // What fetch failed of is the cause of its error. Not by instanceof: Node's own errors may be of another realm.
  const { cause, message } = error as Partial<Error>;
  const { code, hostname } = (cause ?? error) as Partial<NodeJS.ErrnoException> & { hostname?: string };
  const words: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'nothing listens there',
    ENOTFOUND: `there is no host ${hostname ?? 'of this name'}`,
    ECONNRESET: 'the connection was cut',
  };
  return firstLine(
    words[code ?? ''] ?? (((cause as Error | undefined)?.message ?? message) || String(error)),
  );
}

/** Whether the store understood and said no, as opposed to being in trouble. */
export function isRefusal(error: unknown): boolean {
  const status = error instanceof S3ServiceException ? (error.$metadata.httpStatusCode ?? 0) : 0;
  return (status >= 300 && status < 500 && status !== 408 && status !== 429) || status === 501;
}

/** Whether what was asked for is not there, in a bucket that is. */
export function isGone(error: unknown): boolean {
  return (
    error instanceof S3ServiceException &&
    error.$metadata.httpStatusCode === 404 &&
    error.name !== 'NoSuchBucket'
  );
}

export function isSilence(error: unknown): error is TimeIsUpError {
  return error instanceof TimeIsUpError;
}

async function readStart(response: Response): Promise<string> {
  let text = '';
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk as Uint8Array).toString('latin1');
    if (text.length > 4_096) break;
  }
  return text;
}

function firstLine(text: string): string {
  return (text.split('\n')[0] ?? '').slice(0, 300).replace(/[.\s]+$/, '');
}

function ignore(): void {
  // Nothing to do.
}
