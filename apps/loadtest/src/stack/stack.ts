import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { request as requestTls } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { RunFailed } from '../problem.js';

/** Seconds of CPU used so far; null or absent: not to be seen from here. */
export interface CpuUse {
  /** By X-Served-By. */
  readonly replicas: Readonly<Record<string, number>>;
  readonly balancer: number | null;
  readonly store: number | null;
}

/** A Naru that can be measured. */
export interface Stack {
  readonly kind: 'compose' | 'local' | 'url';
  /** What clients ask. */
  readonly url: string;
  /** The quota of each replica while it is measured, in cores; null: it has none. */
  readonly cpusPerReplica: number | null;
  /** Brings up `replicas` of them, or looks for those that are there; resolves when they serve. */
  start(replicas: number): Promise<void>;
  /** Gives each replica its quota, if it is to have one. */
  limit(): Promise<void>;
  /**
   * Has so many of them take part: resolves when each of those, and no other one, gets requests. The others stay as they
   * are, warm, so that nobody pays for a process that has just started.
   */
  select(replicas: number): Promise<void>;
  cpu(): Promise<CpuUse>;
  /** Kills one that takes part; resolves with its id. */
  kill(): Promise<string>;
  /** Has the one that was killed come back. */
  revive(): Promise<void>;
  /** Leaves nothing of what `start` began. May be called at any time, and again. */
  stop(): Promise<void>;
}

/** Replicas have this long to be noticed, or to be missed. */
const SELECT_MS = 45_000;
const PROBE_MS = 2_000;

/** Resolves when exactly these replicas (X-Served-By) get requests at `url`. */
export async function untilServed(url: string, ids: readonly string[]): Promise<void> {
  const wanted = [...ids].sort().join(' ');
  const until = performance.now() + SELECT_MS;
  let seen = '';
  let times = 0;
  while (performance.now() < until) {
    seen = [...(await served(url, 4 * ids.length + 4))].sort().join(' ');
    // Twice: right after a reload old workers of the balancer may still answer.
    times = seen === wanted ? times + 1 : 0;
    if (times === 2) return;
    await sleep(300);
  }
  throw new RunFailed(
    `The balancer was to send requests to ${wanted}, and after ${SELECT_MS / 1000} s it sends them to ${seen || 'nobody'}.`,
  );
}

/** Who answers `count` requests, each on a connection of its own. */
async function served(url: string, count: number): Promise<Set<string>> {
  const answers = await Promise.all(Array.from({ length: count }, () => ask(`${url}/health/live`)));
  // One that hangs still gets requests.
  return new Set(
    answers.map((answer) => (answer?.headers['x-served-by'] ?? 'somebody who hangs').toString()),
  );
}

/** Undefined: nothing answered in time. */
export async function ask(
  url: string,
  headers: Record<string, string> = {},
): Promise<IncomingMessage | undefined> {
  const asked = (url.startsWith('https:') ? requestTls : request)(url, { agent: false, headers });
  const timer = setTimeout(() => asked.destroy(new Error('timed out')), PROBE_MS);
  try {
    const [answer] = (await once(asked.end(), 'response')) as [IncomingMessage];
    answer.resume();
    return answer;
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
