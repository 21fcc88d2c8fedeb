// While the store is away, each failed put adds a key; past this many the oldest is given up.
const MAX_KEYS = 10_000;
const RETRY_MS = 2_000;

/**
 * What failed puts may have left in the bucket. It is cleared at once if the store lets us, else as soon as it
 * does: an object that nobody was told of looks like any other, so no one could tell later that it is nobody's.
 * A replica that ends meanwhile forgets.
 */
export class Leftovers {
  readonly #keys = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  /** `clear` deletes all there is of a key, and rejects when it can't say that it did. */
  constructor(private readonly clear: (key: string) => Promise<void>) {}

  /** Resolves after the first try, whatever came of it. */
  async discard(key: string): Promise<void> {
    try {
      await this.clear(key);
      this.#keys.delete(key);
    } catch {
      this.#keys.add(key);
      const [oldest] = this.#keys;
      if (this.#keys.size > MAX_KEYS && oldest !== undefined) this.#keys.delete(oldest);
      this.#timer ??= setTimeout(() => void this.#retry(), RETRY_MS).unref();
    }
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  async #retry(): Promise<void> {
    for (const key of this.#keys) {
      this.#timer = undefined;
      await this.discard(key);
      // The store is still in trouble.
      if (this.#keys.has(key)) return;
    }
  }
}
