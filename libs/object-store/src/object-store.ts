import type { Readable } from 'node:stream';

/** What is kept with an object besides its bytes. */
export interface ObjectHead {
  readonly key: string;
  readonly bytes: number;
  /** The entity tag as HTTP writes it, quotes included (RFC 9110, section 8.8.3). */
  readonly etag: string;
  readonly contentType: string;
  /** To the second: that is all `Last-Modified` carries. */
  readonly lastModified: Date;
  /** Names in lower case, values in ASCII; 2 KiB in all at most, as S3 has it. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Who put an object under a key that somebody else may put the same bytes under, perhaps at this moment. */
export interface Owner {
  /** Random, and never told to anybody. */
  readonly nonce: string;
  /** Whether its client still waits for an answer. Once it doesn't, it may have asked again, and been told of the object. */
  readonly isAwaited: () => boolean;
}

export interface StoredObject {
  readonly etag: string;
  /** What was there already, with the same bytes: `owner` was not the first, and has nothing to take back. */
  readonly existing?: ObjectHead | undefined;
}

export interface NewObject {
  readonly key: string;
  readonly contentType: string;
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Bytes in memory go out as one PutObject; a stream, whose length nobody knows yet, as a multipart
   * upload. A stream that fails keeps the object from becoming visible.
   */
  readonly body: Buffer | Readable;
  /** Puts it once, however often it is tried: see `ObjectStore.put`. */
  readonly owner?: Owner | undefined;
}

/** An object's bytes, first to last inclusive. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export interface ListedObject {
  readonly key: string;
  readonly bytes: number;
  readonly etag: string;
  readonly lastModified: Date;
}

export interface ObjectPage {
  readonly objects: readonly ListedObject[];
  /** More objects follow the last one of this page. */
  readonly truncated: boolean;
}

/**
 * Where image bytes end up. The class is both the port and the injection token.
 *
 * Every method rejects with `ObjectNotFoundError` where an object has to be there and is not, with
 * the signal's reason when it is aborted, and with `StoreUnavailableError` for whatever else fails.
 */
export abstract class ObjectStore {
  /**
   * Resolves once the whole object is readable; otherwise leaves nothing behind, no S3 part either.
   *
   * With an owner it replaces nothing: where the key is taken by the same bytes, it resolves with what is
   * `existing`, which from then on nobody takes back; where by others, it rejects with `ObjectExistsError`.
   */
  abstract put(object: NewObject, signal: AbortSignal): Promise<StoredObject>;

  /**
   * Replaces the type and metadata of an object that is there; its bytes stay, its entity tag may change.
   * When it rejects, the object is as it was.
   */
  abstract describe(object: Omit<NewObject, 'body'>, signal: AbortSignal): Promise<{ etag: string }>;

  abstract head(key: string): Promise<ObjectHead>;

  /** Destroying the body ends the store's request. */
  abstract get(
    key: string,
    options: { range?: ByteRange | undefined; signal: AbortSignal },
  ): Promise<{ head: ObjectHead; body: Readable }>;

  /** Objects whose keys begin with `prefix` and come after the key `after`, in the store's order; `limit` is 1 to 1,000. */
  abstract list(options: { prefix: string; after?: string | undefined; limit: number }): Promise<ObjectPage>;

  /** Succeeds whether or not the object is there, as S3 has it. */
  abstract delete(key: string): Promise<void>;

  /**
   * Takes back an object that nobody was told of, and whatever a failed put left of it: at once if the store
   * lets us, else as soon as it does. Resolves after the first try and never rejects. With an owner, only what
   * is still that owner's, and of whose put nobody else can have been told.
   */
  abstract discard(key: string, owner?: Owner): Promise<void>;

  /** Resolves when the bucket answers. */
  abstract check(signal: AbortSignal): Promise<void>;

  /** Closes idle connections. */
  abstract close(): void;
}

export class ObjectNotFoundError extends Error {
  override readonly name = 'ObjectNotFoundError';

  constructor(readonly key: string) {
    super(`no object has the key ${key}`);
  }
}

/** The key is taken, by other bytes than those that were to be put. */
export class ObjectExistsError extends Error {
  override readonly name = 'ObjectExistsError';

  constructor(readonly key: string) {
    super(`another object has the key ${key}`);
  }
}

/** The store is down, slow, refuses, or broke off. The cause is for the log, never for a client. */
export class StoreUnavailableError extends Error {
  override readonly name = 'StoreUnavailableError';
}
