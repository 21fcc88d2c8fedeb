import { type Readable } from 'node:stream';
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
  TimeIsUpError,
} from '#object-store';
import { type Metrics } from './metrics.js';

/** Counts and times every call to a store by its outcome. */
export class MeteredObjectStore extends ObjectStore {
  constructor(
    private readonly store: ObjectStore,
    private readonly metrics: Metrics,
  ) {
    super();
    // A counter that begins with its first failure shows no rise, and raises no alarm, until the second.
    for (const operation of ['put', 'describe', 'head', 'get', 'list', 'delete', 'discard', 'check']) {
      metrics.storeSeconds.zero({ operation, outcome: 'unavailable' });
    }
  }

  override put(object: NewObject, signal: AbortSignal): Promise<StoredObject> {
    return this.#meter('put', this.store.put(object, signal));
  }

  override describe(object: Omit<NewObject, 'body'>, signal: AbortSignal): Promise<{ etag: string }> {
    return this.#meter('describe', this.store.describe(object, signal));
  }

  override head(key: string): Promise<ObjectHead> {
    return this.#meter('head', this.store.head(key));
  }

  override get(
    key: string,
    options: { range?: ByteRange | undefined; signal: AbortSignal },
  ): Promise<{ head: ObjectHead; body: Readable }> {
    return this.#meter('get', this.store.get(key, options));
  }

  override list(options: { prefix: string; after?: string | undefined; limit: number }): Promise<ObjectPage> {
    return this.#meter('list', this.store.list(options));
  }

  override delete(key: string): Promise<void> {
    return this.#meter('delete', this.store.delete(key));
  }

  override discard(key: string, owner?: Owner): Promise<void> {
    return this.#meter('discard', this.store.discard(key, owner));
  }

  override check(signal: AbortSignal): Promise<void> {
    return this.#meter('check', this.store.check(signal));
  }

  override close(): void {
    this.store.close();
  }

  async #meter<Result>(operation: string, call: Promise<Result>): Promise<Result> {
    const stop = this.metrics.storeSeconds.startTimer({ operation });
    try {
      const result = await call;
      stop({ outcome: 'ok' });
      return result;
    } catch (error) {
      stop({ outcome: outcomeOf(error) });
      throw error;
    }
  }
}

function outcomeOf(error: unknown): string {
  if (error instanceof ObjectNotFoundError) return 'not_found';
  if (error instanceof ObjectExistsError) return 'exists';
  // The watch gives a store that is silent so long and no longer.
  const isUnavailable = error instanceof StoreUnavailableError || error instanceof TimeIsUpError;
  return isUnavailable ? 'unavailable' : 'aborted';
}
