// While the store is away, each failed put adds a key; past this many the oldest is given up.
const MAX_KEYS = 10_000;
// A store may still be at work on a put that was given up, and bring the object back behind our delete.
const TIMES = 2;
const RETRY_MS = 3_000;

/**
 * What failed puts may have left in the bucket. It is cleared at once if the store lets us, else as soon as it
 * does: an object that nobody was told of looks like any other, so no one could tell later that it is nobody's.
 * A replica that ends meanwhile forgets.
 */
export class Leftovers {
  /** How many times more each has to be cleared. */
  readonly #keys = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;

  /** `clear` deletes all there is of a key, and rejects when it can't say that it did. */
  constructor(private readonly clear: (key: string) => Promise<void>) {}

  /** Resolves after the first try, whatever came of it. */
  async discard(key: string): Promise<void> {
    await this.#try(key, TIMES);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /** Whether the store let us clear it. */
  async #try(key: string, times: number): Promise<boolean> {
    const isCleared = await this.clear(key).then(
      () => true,
      () => false,
    );
    const left = isCleared ? times - 1 : times;
    this.#keys.delete(key);
    if (left > 0) this.#keys.set(key, left);
    const [oldest] = this.#keys.keys();
    if (this.#keys.size > MAX_KEYS && oldest !== undefined) this.#keys.delete(oldest);
    if (this.#keys.size > 0) this.#timer ??= setTimeout(() => void this.#retry(), RETRY_MS).unref();
    return isCleared;
  }

  async #retry(): Promise<void> {
    this.#timer = undefined;
    for (const [key, times] of [...this.#keys]) {
      // The store is still in trouble.
      if (!(await this.#try(key, times))) return;
    }
  }
}
