import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { type Entry, formatReplica } from '#replica-watch';

/** A replica for every address that the names of a list have, asked for anew each time. */
export class Addresses {
  readonly #latest = new Map<string, readonly string[]>();

  constructor(private readonly entries: readonly Entry[]) {}

  /** Resolves with entries as LB_REPLICAS has them. A name that isn't answered, or has no address now, keeps those it had. */
  async find(): Promise<string[]> {
    const found = await Promise.all(
      this.entries.map(async (entry) =>
        (await this.#addressesOf(entry.host)).map((address) => formatReplica(entry, address)),
      ),
    );
    return [...new Set(found.flat())];
  }

  async #addressesOf(host: string): Promise<readonly string[]> {
    if (isIP(host)) return [host];
    const all = await lookup(host, { all: true }).catch(() => []);
    // A replica that has both would be two.
    const family = all.some((found) => found.family === 4) ? 4 : 6;
    const addresses = all.filter((found) => found.family === family).map(({ address }) => address);
    // DNS gives them in another order each time.
    if (addresses.length > 0) this.#latest.set(host, addresses.sort());
    return this.#latest.get(host) ?? [];
  }
}
