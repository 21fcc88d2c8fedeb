import { type Owner } from '../object-store.js';

// While the store is away, each failed put adds a key; past this many the oldest is given up.
const MAX_KEYS = 10_000;
// A store may still be at work on a put that was given up, and bring the object back behind our delete.
const TIMES = 2;
const RETRY_MS = 3_000;

interface Leftover {
  readonly key: string;
  readonly owner: Owner | undefined;
  /** How many times more it has to be cleared. */
  times: number;
}

/**
 * What failed puts may have left in the bucket. It is cleared at once if the store lets us, else as soon as it
 * does: an object that nobody was told of looks like any other, so no one could tell later that it is nobody's.
 * A replica that ends meanwhile forgets.
 */
export class Leftovers {
  readonly #leftovers = new Set<Leftover>();
  #timer: NodeJS.Timeout | undefined;
  #isRetrying = false;

  /** `clear` deletes all there is of a key (and is that owner's), and rejects when it can't say that it did. */
  constructor(private readonly clear: (key: string, owner: Owner | undefined) => Promise<void>) {}

  /** Resolves after the first try, whatever came of it. */
  async discard(key: string, owner?: Owner): Promise<void> {
    await this.#try({ key, owner, times: TIMES });
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /** Whether the store let us clear it. */
  async #try(leftover: Leftover): Promise<boolean> {
    const isCleared = await this.clear(leftover.key, leftover.owner).then(
      () => true,
      () => false,
    );
    if (isCleared) leftover.times -= 1;
    this.#leftovers.delete(leftover);
    if (leftover.times > 0) this.#leftovers.add(leftover);
    const [oldest] = this.#leftovers;
    if (this.#leftovers.size > MAX_KEYS && oldest) this.#leftovers.delete(oldest);
    this.#schedule();
    return isCleared;
  }

  /** One round at a time: of two deletes of one owner, the later one could meet what somebody else put between them. */
  #schedule(): void {
    if (this.#leftovers.size === 0 || this.#isRetrying) return;
    this.#timer ??= setTimeout(() => void this.#retry(), RETRY_MS).unref();
  }

  async #retry(): Promise<void> {
    this.#timer = undefined;
    this.#isRetrying = true;
    for (const leftover of [...this.#leftovers]) {
      // If it doesn't let us, the store is still in trouble.
      if (!(await this.#try(leftover))) break;
    }
    this.#isRetrying = false;
    this.#schedule();
  }
}
