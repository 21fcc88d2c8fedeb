import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

/** Longer than a program takes to end by itself when nobody uses it any more. */
const KILL_AFTER_MS = 30_000;
/** Once nobody wants to wait. */
const HURRY_MS = 1_000;

const ending = new Set<() => void>();
let isHurried = false;

/** From now on no program gets longer than a second to end, those included that are ending already. */
export function hurry(): void {
  isHurried = true;
  for (const end of ending) end();
}

/**
 * One of our programs as a process. It has a process group of its own, so that Ctrl-C reaches it only through
 * us and in order; should we be killed, its IPC channel closes, and it stops by itself.
 */
export class Child {
  readonly #module: string;
  readonly #listeners: ((name: string) => void)[] = [];
  #process: ChildProcess | undefined;

  constructor(
    /** Begins a sentence. */
    readonly name: string,
    app: string,
    /** Whether what it writes to stdout is shown. */
    private readonly logs: boolean,
  ) {
    this.#module = resolve(import.meta.dirname, '../..', app, 'src/main.js');
  }

  onExit(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Resolves with what the program says when it is ready; rejects when it ends before. */
  async start(env: NodeJS.ProcessEnv): Promise<unknown> {
    const child = fork(this.#module, {
      env,
      detached: true,
      execArgv: ['--enable-source-maps'],
      stdio: ['ignore', this.logs ? 'inherit' : 'ignore', 'inherit', 'ipc'],
    });
    this.#process = child;
    const ended = once(child, 'exit').then(() => {
      throw new Error(`${this.name} did not start; what it wrote above says why.`);
    });
    const [ready] = (await Promise.race([once(child, 'message'), ended])) as [unknown];
    child.once('exit', () => {
      for (const listener of this.#listeners) listener(this.name);
    });
    return ready;
  }

  /** Resolves with whether it ended well: what was cut short or had to be killed did not. */
  async stop(killAfterMs = KILL_AFTER_MS): Promise<boolean> {
    const child = this.#process;
    if (child?.exitCode !== null || child.signalCode !== null) return true;
    const kill = () => child.kill('SIGKILL');
    const timers = [setTimeout(kill, isHurried ? HURRY_MS : killAfterMs)];
    const end = () => {
      child.kill('SIGTERM');
      timers.push(setTimeout(kill, HURRY_MS));
    };
    ending.add(end);
    child.kill('SIGTERM');
    // One that is stopped (SIGSTOP) would not hear of it.
    child.kill('SIGCONT');
    await once(child, 'exit');
    for (const timer of timers) clearTimeout(timer);
    ending.delete(end);
    // What it says as it ends changes `child`, which TypeScript doesn't see.
    return (child.exitCode as number | null) === 0;
  }
}
