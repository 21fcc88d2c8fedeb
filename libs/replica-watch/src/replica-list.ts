import { type Status } from './watched-replica.js';

const ENTRY = /^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]):\d{1,5}(\s+\S+)*$/;

/** One of LB_REPLICAS. */
export interface Entry {
  /** A name or an address; an IPv6 address without its brackets. */
  readonly host: string;
  readonly port: number;
  /** What stands behind it, such as `weight=2`. */
  readonly options: readonly string[];
}

/**
 * Replicas as LB_REPLICAS of deploy/nginx/balancer.sh has them: `host:port`, with options behind it, parted by commas.
 * Those that are marked down are left out.
 *
 * @throws Error that names the first that is none.
 */
export function parseReplicas(list: string): Entry[] {
  const items = list
    .split(/[,\n]/)
    .map((item) => item.trim())
    .filter(Boolean);
  return items
    .map((item) => {
      if (!ENTRY.test(item)) throw new Error(`"${item}" is no replica; expected host:port`);
      const [address = '', ...options] = item.split(/\s+/);
      const colon = address.lastIndexOf(':');
      const host = address.slice(0, colon).replace(/[[\]]/g, '');
      return { host, port: Number(address.slice(colon + 1)), options };
    })
    .filter(({ options }) => !options.includes('down'));
}

/** As LB_REPLICAS has it. `resolve` is dropped: `address` is what it was for. */
export function formatReplica({ port, options }: Entry, address: string): string {
  const host = address.includes(':') ? `[${address}]` : address;
  return [`${host}:${port}`, ...options.filter((option) => option !== 'resolve')].join(' ');
}

/** Of replicas that hang, those that answered so much sooner than the last to do so are past hope. */
const HOPE_MS = 10_000;

/**
 * Who is to get requests. Where nobody is ready somebody has to be there all the same, so that clients get a replica's own
 * answer, which says why and when to come again: those that say so, then those that hang since lately, which may be no more
 * than busy, then those that are about to end, then all.
 */
export function whoServes(
  replicas: readonly { entry: string; status: Status; answeredAt: number }[],
): string[] {
  const lastAnswer = Math.max(...replicas.map(({ answeredAt }) => answeredAt));
  const isHopeful = ({ status, answeredAt }: { status: Status; answeredAt: number }): boolean =>
    status !== 'hung' || answeredAt >= lastAnswer - HOPE_MS;
  const preference: readonly Status[] = ['ready', 'unready', 'hung', 'draining'];
  const chosen =
    preference
      .map((wanted) => replicas.filter((one) => one.status === wanted && isHopeful(one)))
      .find((some) => some.length > 0) ?? replicas;
  const entries = chosen.map(({ entry }) => entry);
  // nginx wants one that isn't.
  return entries.every(isBackup) ? entries.map((entry) => entry.replace(BACKUP, '')) : entries;
}

const BACKUP = / backup(?= |$)/;

function isBackup(entry: string): boolean {
  return BACKUP.test(entry);
}
