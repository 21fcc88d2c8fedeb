import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assertNginx } from '../../../local/src/balancer.js';
import { freePort } from '../../../local/src/free-ports.js';
import { BadInput, messageOf, RunFailed } from '../problem.js';
import { descendants, environmentOf, type Process, processes } from './processes.js';
import { type CpuUse, type Stack, untilServed } from './stack.js';

/** `npm start -- --replicas N` on a port and with a folder of its own; both go when the run ends. */
export class LocalStack implements Stack {
  readonly kind = 'local';
  /** A quota takes rights over cgroups that a user doesn't have. */
  readonly cpusPerReplica = null;
  #port = 0;
  #folder: string | undefined;
  #start: ChildProcess | undefined;
  #output = '';
  #count = 0;
  #parked = new Set<number>();

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(replicas: number): Promise<void> {
    if (processes().size === 0) {
      throw new BadInput(
        '--against local needs Linux, where processes can be watched in /proc; take --against compose.',
      );
    }
    try {
      assertNginx();
    } catch (error) {
      throw new BadInput(messageOf(error).replace('--replicas needs', '--against local needs'));
    }
    this.#port = await freePort();
    this.#folder = await mkdtemp(join(tmpdir(), 'naru-loadtest-'));
    const words = ['--port', String(this.#port), '--replicas', String(replicas), '--data', this.#folder];
    const start = spawn(process.execPath, ['apps/local/run.mjs', 'start', ...words], {
      // Whoever started us may be killed; then it ends by itself, as below npm.
      env: { ...process.env, npm_lifecycle_event: 'start', AUTH: 'none', API_KEYS: '', LOG_LEVEL: 'error' },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#start = start;
    for (const stream of [start.stdout, start.stderr]) {
      stream
        .setEncoding('utf8')
        .on('data', (text: string) => (this.#output = (this.#output + text).slice(-20_000)));
    }
    const ended = once(start, 'close').then(() => {
      throw new RunFailed(`Naru did not start:\n${this.#output.trim()}`);
    });
    const ready = async (): Promise<void> => {
      while (!this.#output.includes('Ctrl-C')) await once(start.stdout, 'data');
    };
    await Promise.race([ready(), ended]);
    ended.catch(() => undefined);
    this.#count = replicas;
    await untilServed(this.url, this.#ids());
  }

  limit(): Promise<void> {
    return Promise.resolve();
  }

  async select(count: number): Promise<void> {
    for (const [id, { pid }] of this.#replicas()) {
      const isWanted = this.#ids().indexOf(id) < count;
      if (isWanted) this.#resume(pid);
      else if (!this.#parked.has(pid)) {
        process.kill(pid, 'SIGSTOP');
        this.#parked.add(pid);
      }
    }
    await untilServed(this.url, this.#ids().slice(0, count));
  }

  cpu(): Promise<CpuUse> {
    const all = this.#processes();
    const running = [...this.#replicas(all)].filter(([, { pid }]) => !this.#parked.has(pid));
    const master = all.find(({ command }) => command.startsWith('nginx: master'));
    const workers = all.filter(({ parent }) => parent === master?.pid);
    const store = all.find(({ command }) => command.includes('object-store/src/main.js'));
    return Promise.resolve({
      replicas: Object.fromEntries(running.map(([id, { cpuSeconds }]) => [id, cpuSeconds])),
      // The master's own holds that of workers that a reload has ended.
      balancer: master === undefined ? null : sumOf([master, ...workers]),
      store: store?.cpuSeconds ?? null,
    });
  }

  kill(): Promise<string> {
    const [id, replica] = [...this.#replicas()].filter(([, { pid }]) => !this.#parked.has(pid)).at(-1) ?? [];
    if (id === undefined || replica === undefined)
      return Promise.reject(new RunFailed('There is no replica to kill.'));
    process.kill(replica.pid, 'SIGKILL');
    return Promise.resolve(id);
  }

  /** npm start does so by itself. */
  revive(): Promise<void> {
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    const start = this.#start;
    this.#start = undefined;
    if (start?.exitCode === null && start.signalCode === null) {
      // A process that is stopped hears nothing else.
      for (const pid of this.#parked) this.#resume(pid);
      start.kill('SIGTERM');
      await once(start, 'close');
      endGroup(start);
    }
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  #resume(pid: number): void {
    if (!this.#parked.delete(pid)) return;
    try {
      process.kill(pid, 'SIGCONT');
    } catch {
      // It has gone.
    }
  }

  #ids(): string[] {
    return Array.from({ length: this.#count }, (_, index) => `replica-${index + 1}`);
  }

  #processes(): Process[] {
    return this.#start?.pid === undefined ? [] : descendants(this.#start.pid);
  }

  /** By their ids. */
  #replicas(all = this.#processes()): Map<string, Process> {
    const found = all
      .filter(({ command }) => command.includes('api/src/main.js'))
      .map((process): [string, Process] => [environmentOf(process.pid, 'REPLICA_ID') ?? '', process]);
    return new Map(found.sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true })));
  }
}

/** What it had just begun may outlive it, and would write to the folder once more. */
function endGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // Nothing of it is left.
  }
}

function sumOf(all: readonly Process[]): number {
  return all.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
}
