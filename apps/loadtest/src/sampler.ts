import { setTimeout as sleep } from 'node:timers/promises';
import { type Cpu } from './figures/summary.js';
import { type K6 } from './k6.js';
import { machineCpuSeconds } from './stack/processes.js';
import { type Stack } from './stack/stack.js';

const EVERY_MS = 500;

interface Sample {
  readonly at: number;
  /** CPU seconds so far, by part or by replica. */
  readonly used: Readonly<Record<string, number | null>>;
}

/** Looks at who uses how much CPU, for as long as a run of k6 takes. */
export class Sampler {
  readonly #samples: Sample[] = [];
  #isRunning = true;
  readonly #done: Promise<void>;

  constructor(
    private readonly stack: Stack,
    private readonly k6: K6,
  ) {
    this.#done = this.#sample();
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    await this.#done;
  }

  /** Cores in use between two times (ms since 1970), on average, by part and by replica. */
  between(from: number, to: number): { cpuCores: Cpu; cpuByReplica: Record<string, number> } {
    const cores = (name: string): number | null => {
      const [start, end] = [this.#at(name, from), this.#at(name, to)];
      return start === null || end === null ? null : Math.max(0, (1000 * (end - start)) / (to - from));
    };
    const names = new Set(this.#samples.flatMap(({ used }) => Object.keys(used)));
    const cpuByReplica: Record<string, number> = {};
    for (const name of names) {
      const id = /^replica (.*)/s.exec(name)?.[1];
      const used = id === undefined ? null : cores(name);
      if (id !== undefined && used !== null) cpuByReplica[id] = used;
    }
    const all = Object.values(cpuByReplica);
    return {
      cpuByReplica,
      cpuCores: {
        replicas: all.length > 0 ? all.reduce((sum, one) => sum + one, 0) : null,
        balancer: cores('balancer'),
        store: cores('store'),
        generator: cores('generator'),
        machine: cores('machine'),
      },
    };
  }

  async #sample(): Promise<void> {
    while (this.#isRunning) {
      const [{ replicas, balancer, store }, generator] = await Promise.all([
        this.stack.cpu(),
        this.k6.cpuSeconds(),
      ]);
      this.#samples.push({
        at: Date.now(),
        used: {
          balancer,
          store,
          generator,
          machine: machineCpuSeconds() ?? null,
          ...Object.fromEntries(Object.entries(replicas).map(([id, used]) => [`replica ${id}`, used])),
        },
      });
      await sleep(EVERY_MS);
    }
  }

  /** Interpolated; before the first sample the first, after the last one the last. */
  #at(name: string, time: number): number | null {
    const known = this.#samples.flatMap(({ at, used }) => {
      const value = used[name];
      return value == null ? [] : [{ at, value }];
    });
    const after = known.findIndex(({ at }) => at >= time);
    const end = after < 0 ? known.at(-1) : known[after];
    const start = after <= 0 ? end : known[after - 1];
    if (start === undefined || end === undefined) return null;
    if (start.at === end.at) return start.value;
    return start.value + ((end.value - start.value) * (time - start.at)) / (end.at - start.at);
  }
}
