import { type IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  type CreateMultipartUploadCommandOutput,
  type GetObjectCommandOutput,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
  S3ServiceException,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import {
  type ByteRange,
  type NewObject,
  ObjectExistsError,
  type ObjectHead,
  ObjectNotFoundError,
  type ObjectPage,
  ObjectStore,
  type Owner,
  type StoredObject,
  StoreUnavailableError,
} from '../object-store.js';
import { within } from '../within.js';
import { Leftovers } from './leftovers.js';
import {
  expectSame,
  isOwn,
  LOOK_AGAIN_MS,
  OWNER,
  PartDigests,
  pause,
  putOnce,
  withoutOwner,
} from './put-once.js';
import { toStoreUnavailable } from './store-trouble.js';

export interface S3Options {
  /** Left out: AWS's own endpoint of the region. */
  readonly endpoint?: string | undefined;
  readonly region: string;
  readonly bucket: string;
  /** Left out: the SDK's default chain (a role of the machine, a shared profile). */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  readonly forcePathStyle: boolean;
  /** Make the bucket when it is not there. */
  readonly createBucket: boolean;
  /** 5 MiB (S3's least) to 5 GiB. Bigger: fewer requests for a large image, more memory. */
  readonly partBytes: number;
  /** S3 parts of one upload on their way at the same time. More: faster on a far store, more memory. */
  readonly partsInFlight: number;
  /** Connections to the store. Too few is a ceiling: at 250 ms a put, 50 of them carry 200 uploads a second. */
  readonly maxSockets: number;
  readonly connectTimeoutMs: number;
  /** From sending a request to the head of its answer; afterwards the longest silence of a body. */
  readonly requestTimeoutMs: number;
  /**
   * Tries of one request, the first included. Between them the SDK waits at random for up to 50 ms, then 100, and so on
   * (up to 1 s, then 2, where the store says that it is too much). While all fails it soon tries each only once.
   */
  readonly maxAttempts: number;
  /** For all tries of one request together; a large image takes several requests. Should be less than a client waits. */
  readonly budgetMs: number;
  /**
   * Whether the store knows `If-None-Match: *` on a put. One that says that it doesn't isn't asked again; one that
   * passes over it in silence would let a repeat replace what was there. Without it, the last of two at once wins.
   */
  readonly conditionalPut: boolean;
}

// A put whose bytes have all been sent can't be called back, and a delete could overtake it.
// So an aborted put gets this long to end by itself, and what it stored is deleted then.
const SETTLE_MS = 1_000;
// Completing an upload while others put under its key: 2 s in all.
const COMPLETE_ROUNDS = 6;
// Deleting what a failed put may have stored must not outlast the answer that waits for it.
const DISCARD_TIMEOUT_MS = 5_000;

/**
 * The most memory that putting one object of up to `bytes` takes: all of it when it fits one S3 part;
 * otherwise the S3 parts in flight and the one being filled, each held by lib-storage as one buffer.
 */
export function uploadMemoryBytes(
  bytes: number,
  { partBytes, partsInFlight }: Pick<S3Options, 'partBytes' | 'partsInFlight'>,
): number {
  return bytes <= partBytes ? bytes : (partsInFlight + 1) * partBytes;
}

/**
 * The store behind any S3 endpoint; what differs between vendors is configuration.
 *
 * Permissions it needs: s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload, s3:ListBucket,
 * s3:ListBucketMultipartUploads, and s3:CreateBucket with `createBucket`.
 */
export class S3ObjectStore extends ObjectStore {
  readonly #client: S3Client;
  /** For bodies: the SDK's own timeout takes a reader that pauses for a store that is silent. */
  readonly #bodies: S3Client;
  /** For `check`, which must not wait behind uploads for a connection, nor take tries away from them. */
  readonly #probe: S3Client;
  readonly #options: S3Options;
  /** Deletes for an owner: tried again by the SDK, one could meet what somebody else has put since the owner looked. */
  readonly #single: S3Client;
  readonly #leftovers = new Leftovers((key, owner) =>
    owner ? this.#clearOwn(key, owner) : this.#clear(key),
  );
  /** Of multipart uploads that were neither completed nor aborted; others may have one of the same key. */
  readonly #uploadIds = new WeakMap<Owner, string>();
  #putsConditionally: boolean;

  /** `warn` is for the log of whoever runs the replica. */
  constructor(
    options: S3Options,
    private readonly warn: (message: string) => void = () => undefined,
  ) {
    super();
    this.#options = options;
    this.#putsConditionally = options.conditionalPut;
    const config = (
      socketTimeout: number,
      agent: { keepAlive: true; maxSockets: number },
      maxAttempts = options.maxAttempts,
    ): S3ClientConfig => ({
      region: options.region,
      forcePathStyle: options.forcePathStyle,
      maxAttempts,
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
      // The default, a CRC32 on every request, is refused by NCP (403), OCI and older Ceph.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // With it the SDK opens a new connection for every S3 part.
      expectContinueHeader: false,
      requestHandler: {
        connectionTimeout: options.connectTimeoutMs,
        requestTimeout: options.requestTimeoutMs,
        throwOnRequestTimeout: true,
        socketTimeout,
        httpAgent: agent,
        httpsAgent: agent,
      },
    });
    const agent = { keepAlive: true, maxSockets: options.maxSockets } as const;
    this.#client = this.#newClient(config(options.requestTimeoutMs, agent));
    this.#bodies = this.#newClient(config(0, agent));
    this.#single = this.#newClient(config(options.requestTimeoutMs, agent, 1));
    // Two tries, since a clock that is wrong is noticed and allowed for with the first one.
    this.#probe = this.#newClient(config(options.requestTimeoutMs, { ...agent, maxSockets: 8 }, 2));
    // TLS guards the bytes already; hashing them again for the signature is the largest single cost of
    // a put. Over plain http the signature's SHA-256 stays, since nothing else would notice a flipped bit.
    if (options.endpoint === undefined || options.endpoint.startsWith('https:')) this.#leavePayloadUnsigned();
  }

  override async put(object: NewObject, signal: AbortSignal): Promise<StoredObject> {
    const { body, owner } = object;
    try {
      signal.throwIfAborted();
      if (body instanceof Readable) {
        return owner
          ? await this.#putInPartsOnce(object, body, owner, signal)
          : await this.#putInParts(object, body, signal);
      }
      return owner
        ? await this.#putWholeOnce(object, body, owner, signal)
        : await this.#putWhole(object, body, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw toStoreError(error, object.key);
    }
  }

  override async describe(object: Omit<NewObject, 'body'>, signal: AbortSignal): Promise<{ etag: string }> {
    try {
      const { Bucket, Key } = this.#at(object.key);
      const output = await this.#client.send(
        new CopyObjectCommand({
          ...this.#describe(object),
          CopySource: `${Bucket}/${Key}`,
          MetadataDirective: 'REPLACE',
        }),
        { abortSignal: signal },
      );
      return { etag: output.CopyObjectResult?.ETag ?? '' };
    } catch (error) {
      signal.throwIfAborted();
      throw toStoreError(error, object.key);
    }
  }

  override async head(key: string): Promise<ObjectHead> {
    try {
      return toHead(key, await this.#client.send(new HeadObjectCommand(this.#at(key))));
    } catch (error) {
      throw toStoreError(error, key);
    }
  }

  override async get(
    key: string,
    { range, signal }: { range?: ByteRange | undefined; signal: AbortSignal },
  ): Promise<{ head: ObjectHead; body: Readable }> {
    try {
      const output = await this.#bodies.send(
        new GetObjectCommand({
          ...this.#at(key),
          ...(range && { Range: `bytes=${range.start}-${range.end}` }),
        }),
        { abortSignal: signal },
      );
      const body = output.Body as IncomingMessage;
      endWith(signal, body);
      endSilence(body, this.#options.requestTimeoutMs);
      return { head: toHead(key, output), body };
    } catch (error) {
      signal.throwIfAborted();
      throw toStoreError(error, key);
    }
  }

  override async list({
    prefix,
    after,
    limit,
  }: {
    prefix: string;
    after?: string | undefined;
    limit: number;
  }): Promise<ObjectPage> {
    try {
      // Not ListObjectsV2: NAVER Cloud's Object Storage has only this one.
      const page = await this.#client.send(
        new ListObjectsCommand({
          Bucket: this.#options.bucket,
          Prefix: prefix,
          MaxKeys: limit,
          ...(after !== undefined && { Marker: after }),
        }),
      );
      return {
        objects: (page.Contents ?? []).map((item) => ({
          key: item.Key ?? '',
          bytes: item.Size ?? 0,
          etag: item.ETag ?? '',
          lastModified: item.LastModified ?? new Date(0),
        })),
        truncated: page.IsTruncated === true,
      };
    } catch (error) {
      throw toStoreError(error, prefix);
    }
  }

  override async delete(key: string): Promise<void> {
    try {
      await this.#client.send(new DeleteObjectCommand(this.#at(key)));
    } catch (error) {
      throw toStoreError(error, key);
    }
  }

  override discard(key: string, owner?: Owner): Promise<void> {
    return this.#leftovers.discard(key, owner);
  }

  override async check(signal: AbortSignal): Promise<void> {
    const { bucket: Bucket, createBucket } = this.#options;
    try {
      await this.#probe.send(new HeadBucketCommand({ Bucket }), { abortSignal: signal });
    } catch (error) {
      signal.throwIfAborted();
      const isGone = error instanceof S3ServiceException && error.$metadata.httpStatusCode === 404;
      if (isGone && createBucket) return this.#createBucket(signal);
      // The answer to HEAD has no body that could say so.
      if (isGone) error.name = 'NoSuchBucket';
      throw toStoreUnavailable(error);
    }
  }

  override close(): void {
    this.#leftovers.close();
    this.#client.destroy();
    this.#bodies.destroy();
    this.#single.destroy();
    this.#probe.destroy();
  }

  /** A client none of whose requests, lib-storage's included, is tried or waited for past the budget. */
  #newClient(config: S3ClientConfig): S3Client {
    const client = new S3Client(config);
    const send = client.send.bind(client) as (command: unknown, options?: object) => Promise<unknown>;
    const sendWithin = (command: unknown, options: { abortSignal?: AbortSignal } = {}) =>
      within(this.#options.budgetMs, options.abortSignal, (abortSignal) =>
        send(command, { ...options, abortSignal }),
      );
    return Object.assign(client, { send: sendWithin as S3Client['send'] });
  }

  async #putWholeOnce(
    object: NewObject,
    body: Buffer,
    owner: Owner,
    signal: AbortSignal,
  ): Promise<StoredObject> {
    const { key } = object;
    // TypeScript doesn't see that putOnce calls what sets it.
    let isTaken = false as boolean;
    try {
      return await putOnce(
        {
          putIfAbsent: async () => {
            const stored = await this.#putIfAbsent(object, body, signal);
            isTaken = !stored;
            return stored;
          },
          // Never taken back: the object may be one that somebody was told of.
          claim: (found) => this.#putKept(found, body, signal, { IfMatch: found.etag }),
          find: () => this.#find(key, signal),
          findSame: () => this.#findSame(key, signal, (found) => expectSame(body, found)),
        },
        owner,
        signal,
      );
    } catch (error) {
      // It may be by our own put, whose answer was lost.
      if (isTaken && !(error instanceof ObjectExistsError)) await this.discard(key, owner);
      throw error;
    }
  }

  async #putIfAbsent(
    object: NewObject,
    body: Buffer,
    signal: AbortSignal,
  ): Promise<{ etag: string } | undefined> {
    if (this.#putsConditionally) {
      try {
        return await this.#putWhole(object, body, signal, { IfNoneMatch: '*' });
      } catch (error) {
        if (isTaken(error)) return undefined;
        if (!isNotImplemented(error)) throw error;
        this.#putUnconditionally();
      }
    }
    return (await this.#find(object.key, signal)) ? undefined : this.#putWhole(object, body, signal);
  }

  /** Puts bytes under the head given, without an owner; resolves with undefined where the condition doesn't hold. */
  async #putKept(
    { key, contentType, metadata }: ObjectHead,
    body: Buffer,
    signal: AbortSignal,
    condition: Condition,
  ): Promise<{ etag: string } | undefined> {
    const object = { key, contentType, metadata: withoutOwner(metadata) };
    try {
      return await this.#send(object, body, signal, this.#putsConditionally ? condition : {});
    } catch (error) {
      if (isTaken(error) || toStoreError(error, key) instanceof ObjectNotFoundError) return undefined;
      // It knows If-None-Match alone.
      if (condition.IfMatch && isNotImplemented(error)) return this.#send(object, body, signal);
      throw error;
    }
  }

  async #putWhole(
    object: NewObject,
    body: Buffer,
    signal: AbortSignal,
    condition: Condition = {},
  ): Promise<{ etag: string }> {
    try {
      return await this.#send(object, body, signal, condition);
    } catch (error) {
      const isRefused = condition.IfNoneMatch && (isTaken(error) || isNotImplemented(error));
      if (!isRefused && mayHaveStored(error)) await this.discard(object.key, object.owner);
      throw error;
    }
  }

  async #send(
    object: Omit<NewObject, 'body'>,
    body: Buffer,
    signal: AbortSignal,
    condition: Condition = {},
  ): Promise<{ etag: string }> {
    const settled = settle(signal);
    try {
      const output = await this.#client.send(
        new PutObjectCommand({
          ...this.#describe(object),
          ...condition,
          Body: body,
          ContentLength: body.length,
        }),
        { abortSignal: settled.signal },
      );
      signal.throwIfAborted();
      return { etag: etagOf(output) };
    } finally {
      settled.end();
    }
  }

  async #putInPartsOnce(
    object: NewObject,
    body: Readable,
    owner: Owner,
    signal: AbortSignal,
  ): Promise<StoredObject> {
    const { key } = object;
    const digests = new PartDigests();
    try {
      return await this.#putInParts(object, body, signal, digests);
    } catch (error) {
      if (!isTaken(error)) throw error;
    }
    try {
      const found = await this.#findSame(key, signal, (there) => digests.expectSame(there));
      if (found && isOwn(found, owner)) {
        this.#uploadIds.delete(owner);
        return { etag: found.etag };
      }
      await sleep(LOOK_AGAIN_MS, undefined, { signal });
      const existing = await this.#find(key, signal);
      if (found && existing?.etag === found.etag) return { etag: found.etag, existing };
      throw new StoreUnavailableError('what was there has been taken back; the bytes to put are gone');
    } finally {
      // The others of this key are none of ours; of our own upload nothing may stay.
      if (this.#uploadIds.has(owner)) await this.discard(key, owner);
    }
  }

  async #putInParts(
    object: NewObject,
    body: Readable,
    signal: AbortSignal,
    digests?: PartDigests,
  ): Promise<{ etag: string }> {
    // `Upload.abort()` returns before S3 has forgotten the upload. A body that fails makes `done()`
    // wait for the S3 parts in flight and abort the upload before it rejects.
    const onAbort = () => body.destroy(toError(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    const settled = settle(signal);
    try {
      const upload = new Upload({
        client: this.#clientFor(object, body, settled.signal, digests),
        params: { ...this.#describe(object), Body: body },
        partSize: this.#options.partBytes,
        queueSize: this.#options.partsInFlight,
      });
      const output = await upload.done();
      signal.throwIfAborted();
      return { etag: etagOf(output) };
    } catch (error) {
      body.destroy();
      if (!isTaken(error)) await this.discard(object.key, object.owner);
      throw error;
    } finally {
      settled.end();
      signal.removeEventListener('abort', onAbort);
    }
  }

  /**
   * What lib-storage sends through. By itself it looks at a failed S3 part only when the body has ended, so the
   * body ends with the first failure; and it never breaks off a request, so the signal does.
   */
  #clientFor(
    { owner }: NewObject,
    body: Readable,
    abortSignal: AbortSignal,
    digests?: PartDigests,
  ): S3Client {
    const send = async (command: Parameters<S3Client['send']>[0]): Promise<unknown> => {
      try {
        const isCleanup = command instanceof AbortMultipartUploadCommand;
        const signal = isCleanup ? AbortSignal.timeout(DISCARD_TIMEOUT_MS) : abortSignal;
        if (command instanceof UploadPartCommand) {
          digests?.add(command.input.PartNumber ?? 0, command.input.Body as Buffer);
        }
        if (owner && command instanceof CompleteMultipartUploadCommand) {
          const output = await this.#completeIfAbsent(command, abortSignal);
          this.#uploadIds.delete(owner);
          return output;
        }
        const output: unknown = await this.#client.send(command, { abortSignal: signal });
        if (owner && command instanceof CreateMultipartUploadCommand) {
          this.#uploadIds.set(owner, (output as CreateMultipartUploadCommandOutput).UploadId ?? '');
        }
        if (owner && isCleanup) this.#uploadIds.delete(owner);
        return output;
      } catch (error) {
        body.destroy(toError(error));
        throw error;
      }
    };
    return Object.create(this.#client, { send: { value: send } }) as S3Client;
  }

  /** @throws TakenError when the key is taken, perhaps by this very upload, the first answer to which was lost. */
  async #completeIfAbsent(command: CompleteMultipartUploadCommand, abortSignal: AbortSignal) {
    const { input } = command;
    for (let round = 1; round <= COMPLETE_ROUNDS; round += 1) {
      if (!this.#putsConditionally) {
        if (await this.#find(input.Key ?? '', abortSignal)) throw new TakenError();
        return await this.#client.send(new CompleteMultipartUploadCommand(input), { abortSignal });
      }
      try {
        return await this.#client.send(new CompleteMultipartUploadCommand({ ...input, IfNoneMatch: '*' }), {
          abortSignal,
        });
      } catch (error) {
        const { name, $metadata } = error as { name?: string; $metadata?: { attempts?: number } };
        if (name === 'NoSuchUpload' && ($metadata?.attempts ?? 1) > 1) throw new TakenError();
        if (isNotImplemented(error)) this.#putUnconditionally();
        // Others are at it this moment; the upload is still there.
        else if (name === 'ConditionalRequestConflict') await pause(round, abortSignal);
        else throw error;
      }
    }
    throw new TakenError();
  }

  #putUnconditionally(): void {
    if (!this.#putsConditionally) return;
    this.#putsConditionally = false;
    this.warn(
      'the store has no conditional put (If-None-Match: *); each put of a request with an Idempotency-Key looks first ' +
        'from now on, and of two at once the last one wins. S3_CONDITIONAL_PUT=false says so from the start',
    );
  }

  async #find(key: string, abortSignal: AbortSignal): Promise<ObjectHead | undefined> {
    try {
      return toHead(key, await this.#client.send(new HeadObjectCommand(this.#at(key)), { abortSignal }));
    } catch (error) {
      if (toStoreError(error, key) instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  }

  async #findSame(
    key: string,
    signal: AbortSignal,
    expect: (there: { head: ObjectHead; body: Readable }) => Promise<ObjectHead>,
  ): Promise<ObjectHead | undefined> {
    try {
      return await expect(await this.get(key, { signal }));
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  }

  /** Aborts the owner's multipart upload, and deletes the object if it is the owner's and nobody can have been told of it. */
  async #clearOwn(key: string, owner: Owner): Promise<void> {
    const abortSignal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
    const UploadId = this.#uploadIds.get(owner);
    if (UploadId !== undefined) {
      await this.#client
        .send(new AbortMultipartUploadCommand({ ...this.#at(key), UploadId }), { abortSignal })
        .catch((error: unknown) => {
          if (!(error instanceof Error && error.name === 'NoSuchUpload')) throw error;
        });
      this.#uploadIds.delete(owner);
    }
    const isClaimable = ({ bytes }: ObjectHead) =>
      this.#putsConditionally && bytes <= this.#options.partBytes;
    const look = async () => {
      const head = await this.#find(key, abortSignal);
      return head && isOwn(head, owner) && (isClaimable(head) || owner.isAwaited()) ? head : undefined;
    };
    const head = await look();
    if (!head) return;
    const copy = isClaimable(head) ? await this.#read(key, abortSignal) : undefined;
    const start = performance.now();
    if (!(await look())) return;
    const putBack = async () => {
      if (!copy) return;
      await this.#putKept(head, copy, AbortSignal.timeout(DISCARD_TIMEOUT_MS), { IfNoneMatch: '*' });
    };
    try {
      await this.#single.send(new DeleteObjectCommand(this.#at(key)), { abortSignal });
    } catch (error) {
      // It may be deleted, whatever was answered.
      if (mayHaveStored(error)) await putBack();
      throw error;
    }
    if (performance.now() - start >= LOOK_AGAIN_MS) await putBack();
  }

  async #read(key: string, signal: AbortSignal): Promise<Buffer> {
    const { body } = await this.get(key, { signal });
    return buffer(body);
  }

  /** Aborts unfinished uploads of the key, those included whose upload id never reached us, and deletes the object. */
  async #clear(key: string): Promise<void> {
    const abortSignal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
    try {
      const { Uploads = [] } = await this.#client.send(
        new ListMultipartUploadsCommand({ Bucket: this.#options.bucket, Prefix: key }),
        { abortSignal },
      );
      for (const { Key, UploadId } of Uploads) {
        if (Key !== key) continue;
        const upload = { ...this.#at(key), UploadId };
        await this.#client.send(new AbortMultipartUploadCommand(upload), { abortSignal });
      }
    } finally {
      // Last, since an upload could still be completed until it was aborted.
      await this.#client.send(new DeleteObjectCommand(this.#at(key)), { abortSignal });
    }
  }

  async #createBucket(signal: AbortSignal): Promise<void> {
    try {
      await this.#client.send(new CreateBucketCommand({ Bucket: this.#options.bucket }), {
        abortSignal: signal,
      });
    } catch (error) {
      // Another replica was first.
      if (error instanceof S3ServiceException && error.name.startsWith('BucketAlready')) return;
      signal.throwIfAborted();
      throw toStoreUnavailable(error);
    }
  }

  #leavePayloadUnsigned(): void {
    this.#client.middlewareStack.add(
      (next, context) => (args) => {
        const { request } = args as { request?: { headers: Record<string, string> } };
        if (request && /^(PutObject|UploadPart)Command$/.test(String(context['commandName']))) {
          request.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
        }
        return next(args);
      },
      { step: 'build', name: 'leavePayloadUnsigned' },
    );
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#options.bucket, Key: key };
  }

  #describe({ key, contentType, metadata, owner }: Omit<NewObject, 'body'>) {
    const Metadata = { ...metadata, ...(owner && { [OWNER]: owner.nonce }) };
    return { ...this.#at(key), ContentType: contentType, Metadata };
  }
}

/** On which a put replaces, or does not. */
interface Condition {
  readonly IfNoneMatch?: '*';
  /** An entity tag. */
  readonly IfMatch?: string;
}

/** Something has the key already. */
class TakenError extends Error {}

/** 409: somebody is putting it this moment. */
function isTaken(error: unknown): boolean {
  const name = error instanceof Error ? error.name : '';
  return (
    error instanceof TakenError || name === 'PreconditionFailed' || name === 'ConditionalRequestConflict'
  );
}

function isNotImplemented(error: unknown): boolean {
  return (
    error instanceof S3ServiceException &&
    (error.name === 'NotImplemented' || error.$metadata.httpStatusCode === 501)
  );
}

/** A signal that is aborted SETTLE_MS after another one, unless it is ended before. */
function settle(signal: AbortSignal): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = () => {
    timer = setTimeout(() => {
      controller.abort();
    }, SETTLE_MS);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  return {
    signal: controller.signal,
    end: () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    },
  };
}

/** @throws StoreUnavailableError for a success without an entity tag: what answered is no store. */
function etagOf({ ETag }: { ETag?: string | undefined }): string {
  if (ETag) return ETag;
  throw new StoreUnavailableError('the answer to a put has no ETag; is S3_ENDPOINT an S3 endpoint?');
}

/** Ends a body, and with it its request, when `signal` is aborted. */
function endWith(signal: AbortSignal, body: Readable): void {
  const onAbort = () => {
    body.destroy(toError(signal.reason));
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  body.once('close', () => {
    signal.removeEventListener('abort', onAbort);
  });
}

/** Fails a body when its store is silent for too long while somebody waits for its bytes. */
function endSilence(body: IncomingMessage, silenceMs: number): void {
  const { socket } = body;
  const onTimeout = () => {
    const { bytesRead } = socket;
    // If this process stood still, what came meanwhile is read before that.
    setImmediate(() => {
      if (body.destroyed) return;
      // Bytes are here and nobody takes them: it is the reader who is slow.
      if (body.readableLength > 0 || socket.bytesRead > bytesRead) socket.setTimeout(silenceMs);
      else body.destroy(new Error(`the store was silent for ${silenceMs} ms in the middle of an object`));
    });
  };
  socket.setTimeout(silenceMs, onTimeout);
  body.once('close', () => socket.off('timeout', onTimeout));
}

function toHead(key: string, output: HeadObjectCommandOutput | GetObjectCommandOutput): ObjectHead {
  return {
    key,
    bytes: output.ContentLength ?? 0,
    etag: output.ETag ?? '',
    contentType: output.ContentType ?? 'application/octet-stream',
    lastModified: output.LastModified ?? new Date(0),
    metadata: output.Metadata ?? {},
  };
}

/** A first try that was refused (4xx), or found nobody, has stored nothing; after anything else one can't know. */
function mayHaveStored(error: unknown): boolean {
  const { code, $metadata } = error as {
    code?: string;
    $metadata?: { attempts?: number; httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode ?? 500;
  return ($metadata?.attempts ?? 1) > 1 || (status >= 500 && code !== 'ECONNREFUSED');
}

function toStoreError(error: unknown, key: string): Error {
  if (error instanceof ObjectExistsError) return error;
  const name = error instanceof Error ? error.name : '';
  return name === 'NoSuchKey' || name === 'NotFound'
    ? new ObjectNotFoundError(key)
    : toStoreUnavailable(error);
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('aborted', { cause: reason });
}
