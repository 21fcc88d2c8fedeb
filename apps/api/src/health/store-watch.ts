import { type Readable } from 'node:stream';
import { Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import {
  type ByteRange,
  type NewObject,
  type ObjectHead,
  ObjectNotFoundError,
  type ObjectPage,
  ObjectStore,
  type Owner,
  type StoredObject,
  StoreUnavailableError,
  within,
} from '#object-store';

// From one probe to the next, at random in between, so that replicas don't ask all at once.
const PROBE_MS = { least: 500, most: 1_000 };
// Probes overlap: whether the next one fares better is known before this is over.
const PROBE_TIMEOUT_MS = 2_500;
// So many probes in a row change the readiness. One alone may be a slow answer, or luck.
const IN_A_ROW = 2;
// A store that was away for so long is not waited for any more.
const SHED_AFTER_MS = 3_000;
// A store may answer probes and take no object: after so many puts without one that succeeded, in SHED_AFTER_MS at least, one
// upload in so long tries whether it does again.
const PUTS_IN_A_ROW = 5;
const TRY_EVERY_MS = 1_000;

/**
 * An object store that is watched. It is asked again and again whether it is well, and each call that succeeds
 * counts as well. Readiness follows after two probes of the same kind; once nothing has succeeded for SHED_AFTER_MS, calls are
 * refused at once, so that uploads don't pile up in memory for a store that doesn't take them, until a probe succeeds.
 */
export class StoreWatch extends ObjectStore implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #logger = new Logger('StoreWatch');
  #first: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Undefined until the first probe, which decides alone. */
  #isReady: boolean | undefined;
  #isShedding = false;
  #trouble: string | undefined;
  /** Probes in a row. */
  #succeeded = 0;
  #failed = 0;
  #lastSuccessAt = -Infinity;
  /** Puts in a row, and when the first of them began. */
  #failedPuts = 0;
  #putsFailingSince = Infinity;
  #triedAt = -Infinity;
  /** When the first of the probes that failed in a row was sent. */
  #failingSince: number | undefined;

  constructor(private readonly store: ObjectStore) {
    super();
  }

  get isReady(): boolean {
    return this.#isReady === true;
  }

  /** Why it isn't ready: for anybody to read. */
  get trouble(): string {
    return this.#trouble ?? 'the object store was not asked yet';
  }

  /** @throws StoreUnavailableError while it would be of no use to ask the store for anything. */
  private assertUp(): void {
    if (!this.#isShedding) return;
    const seconds = Math.round((performance.now() - (this.#failingSince ?? 0)) / 1_000);
    throw new StoreUnavailableError(
      `refused at once, as the store has failed for ${seconds} s: ${this.trouble}`,
    );
  }

  /** For an upload that is about to begin. @throws StoreUnavailableError while it would be of no use */
  admitUpload(): void {
    this.assertUp();
    const now = performance.now();
    if (this.#failedPuts < PUTS_IN_A_ROW || now - this.#putsFailingSince < SHED_AFTER_MS) return;
    if (now - this.#triedAt < TRY_EVERY_MS) {
      throw new StoreUnavailableError(
        `refused at once, as the last ${this.#failedPuts} puts have failed and another one is being tried`,
      );
    }
    this.#triedAt = now;
  }

  /** Resolves when it is known for the first time how the store is; a store that is away is no reason not to start. */
  async onApplicationBootstrap(): Promise<void> {
    // Nest calls it for each token that this goes by.
    this.#first ??= this.#probe().then(() => {
      this.#probeLater();
    });
    await this.#first;
  }

  onApplicationShutdown(): void {
    clearTimeout(this.#timer);
    this.store.close();
  }

  override async put(object: NewObject, signal: AbortSignal): Promise<StoredObject> {
    const beganAt = performance.now();
    try {
      const stored = await this.#call(() => this.store.put(object, signal));
      this.#failedPuts = 0;
      this.#putsFailingSince = Infinity;
      return stored;
    } catch (error) {
      if (error instanceof StoreUnavailableError) {
        this.#failedPuts += 1;
        this.#putsFailingSince = Math.min(this.#putsFailingSince, beganAt);
      }
      throw error;
    }
  }

  override async describe(object: Omit<NewObject, 'body'>, signal: AbortSignal): Promise<{ etag: string }> {
    return this.#call(() => this.store.describe(object, signal));
  }

  override async head(key: string): Promise<ObjectHead> {
    return this.#call(() => this.store.head(key));
  }

  override async get(
    key: string,
    options: { range?: ByteRange | undefined; signal: AbortSignal },
  ): Promise<{ head: ObjectHead; body: Readable }> {
    return this.#call(() => this.store.get(key, options));
  }

  override async list(options: {
    prefix: string;
    after?: string | undefined;
    limit: number;
  }): Promise<ObjectPage> {
    return this.#call(() => this.store.list(options));
  }

  override async delete(key: string): Promise<void> {
    return this.#call(() => this.store.delete(key));
  }

  /** Never refused: it tries until the store lets it. */
  override discard(key: string, owner?: Owner): Promise<void> {
    return this.store.discard(key, owner);
  }

  override check(signal: AbortSignal): Promise<void> {
    return this.store.check(signal);
  }

  override close(): void {
    this.store.close();
  }

  async #call<Result>(call: () => Promise<Result>): Promise<Result> {
    this.assertUp();
    try {
      const result = await call();
      this.#noteSuccess();
      return result;
    } catch (error) {
      // HEAD says the same of an object that isn't there and of a bucket that isn't.
      if (error instanceof ObjectNotFoundError && this.#failed > 0) {
        throw new StoreUnavailableError(this.trouble, { cause: error });
      }
      throw error;
    }
  }

  async #probe(): Promise<void> {
    const sentAt = performance.now();
    try {
      await within(PROBE_TIMEOUT_MS, undefined, (signal) => this.store.check(signal));
      this.#noteSuccess();
      this.#succeeded += 1;
      if (!this.#isReady && this.#succeeded >= (this.#isReady === undefined ? 1 : IN_A_ROW))
        this.#turnReady();
    } catch (error) {
      // Something has succeeded since: this one was slow, or lost.
      if (sentAt < this.#lastSuccessAt) return;
      this.#noteFailure(sentAt, error);
    }
  }

  #probeLater(): void {
    const { least, most } = PROBE_MS;
    this.#timer = setTimeout(
      () => {
        void this.#probe();
        this.#probeLater();
      },
      least + Math.random() * (most - least),
    ).unref();
  }

  #noteSuccess(): void {
    this.#lastSuccessAt = performance.now();
    this.#failed = 0;
    this.#failingSince = undefined;
    if (this.#isShedding) this.#logger.log('the object store answers: uploads are taken again');
    this.#isShedding = false;
  }

  #noteFailure(sentAt: number, error: unknown): void {
    const trouble =
      error instanceof StoreUnavailableError ? error.message : 'the object store does not answer in time';
    this.#succeeded = 0;
    this.#failed += 1;
    this.#failingSince ??= sentAt;
    if (this.#isReady === undefined || this.#failed >= IN_A_ROW) {
      // Said again only when it is another trouble.
      if (this.isReady || this.#trouble !== trouble) {
        this.#logger.warn({ msg: 'the object store is not ready', reason: trouble, err: error });
      }
      this.#isReady = false;
      this.#trouble = trouble;
    }
    const awayMs = performance.now() - this.#failingSince;
    if (this.#isShedding || this.#failed < IN_A_ROW || awayMs < SHED_AFTER_MS) return;
    this.#isShedding = true;
    this.#logger.warn({
      msg: 'the object store is away: uploads are refused unread',
      awayMs: Math.round(awayMs),
    });
  }

  #turnReady(): void {
    if (this.#isReady === false) this.#logger.log('the object store is ready');
    this.#isReady = true;
    this.#trouble = undefined;
  }
}
