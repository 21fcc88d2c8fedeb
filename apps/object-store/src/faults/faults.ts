import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import type { S3Request } from '../http/s3-request.js';
import { OPERATIONS, type OperationName } from '../operations/route.js';
import { S3Error } from '../s3-error.js';

const LONGEST_LATENCY_MS = 10 * 60 * 1000;

/** What each status is called when no code is given, as S3 and MinIO have it. */
const CODES: Readonly<Record<number, string>> = {
  403: 'AccessDenied',
  404: 'NoSuchBucket',
  500: 'InternalError',
  503: 'SlowDown',
  507: 'XMinioStorageFull',
};

const FAULTS = z.strictObject({
  /** Only these, by S3's names; without it, all of them. */
  operations: z.array(z.enum(OPERATIONS)).min(1).optional(),
  /** Before anything else is done. */
  latencyMs: z.int().min(0).max(LONGEST_LATENCY_MS).optional(),
  error: z
    .strictObject({
      status: z.int().min(400).max(599),
      code: z
        .string()
        .regex(/^[A-Za-z]{1,64}$/)
        .optional(),
      /** Of the requests, by chance: above 0, up to 1. */
      rate: z.number().gt(0).max(1).optional(),
      /** How many requests fail before the store is well again. */
      count: z.int().min(1).optional(),
    })
    .optional(),
  /** Accepts, reads the head of a request and never answers. */
  hang: z.boolean().optional(),
  /** Breaks the connection in the middle of a request's body; without a body, in place of the answer. */
  cut: z.boolean().optional(),
  /** There is no room for another byte; reading and deleting go on. */
  full: z.boolean().optional(),
});

export type FaultSettings = z.input<typeof FAULTS>;

const WRITES: readonly OperationName[] = [
  'PutObject',
  'UploadPart',
  'CopyObject',
  'CreateMultipartUpload',
  'CompleteMultipartUpload',
];

/** An answer that no S3Error stands for, since a fault may be any. */
export class Fault extends Error {
  override readonly name = 'Fault';
  readonly headers = {};

  constructor(
    readonly status: number,
    readonly code: string,
  ) {
    super('A fault that was asked for.');
  }
}

/** What is wrong with the store at the moment; tests flip it while requests come in. */
export class Faults {
  #settings: FaultSettings = {};

  /** What is left of the faults that were asked for. */
  get settings(): FaultSettings {
    return this.#settings;
  }

  /**
   * Replaces all faults at once; `{}` mends everything, but requests that hang already go on hanging.
   * Throws InvalidArgument, naming what is wrong.
   */
  set(settings: unknown): void {
    const result = FAULTS.safeParse(settings);
    if (!result.success) throw new S3Error('InvalidArgument', z.prettifyError(result.error));
    this.#settings = result.data;
  }

  /**
   * Resolves when the request is to be served all the same, and false when nobody is to answer it any more.
   * Throws a Fault where it is to be refused. `begin` lets a body come that waits for `100 Continue`.
   */
  async pass(
    request: S3Request,
    operation: OperationName,
    begin: () => void,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { operations, latencyMs = 0, hang, cut, full, error } = this.#settings;
    if (operations && !operations.includes(operation)) return true;
    if (latencyMs > 0) await setTimeout(latencyMs, undefined, { signal });
    if (hang) {
      if (!signal.aborted) await once(signal, 'abort');
      return false;
    }
    if (cut) {
      begin();
      await breakOff(request);
      return false;
    }
    if (full && WRITES.includes(operation)) throw new Fault(507, 'XMinioStorageFull');
    if (error && Math.random() < (error.rate ?? 1) && this.#isDue(error)) {
      throw new Fault(error.status, error.code ?? CODES[error.status] ?? 'InternalError');
    }
    return true;
  }

  /** Counts down; a count that has run out takes the fault away. */
  #isDue(error: NonNullable<FaultSettings['error']>): boolean {
    if (error.count === undefined) return true;
    // Set anew, or used up by others, while this request waited.
    if (error !== this.#settings.error) return false;
    error.count -= 1;
    if (error.count === 0) delete this.#settings.error;
    return true;
  }
}

async function breakOff({ message }: S3Request): Promise<void> {
  const half = Number(message.headers['content-length'] ?? 0) / 2;
  let received = 0;
  if (half > 0 || message.headers['transfer-encoding'] !== undefined) {
    for await (const chunk of message as AsyncIterable<Buffer>) {
      received += chunk.length;
      if (received >= half) break;
    }
  }
  message.socket.destroy();
}
