import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

/** Longer than a replica's own SHUTDOWN_TIMEOUT_MS, after which it ends by itself. */
const KILL_AFTER_MS = 30_000;

/** What a program of ours tells its parent once it takes requests. */
export interface Ready {
  readonly url: string;
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
    readonly name: string,
    app: string,
  ) {
    this.#module = resolve(import.meta.dirname, '../..', app, 'src/main.js');
  }

  onExit(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Resolves when the program says that it is ready; rejects when it ends before. */
  async start(env: NodeJS.ProcessEnv): Promise<Ready> {
    const child = fork(this.#module, { env, detached: true, execArgv: ['--enable-source-maps'] });
    this.#process = child;
    const ended = once(child, 'exit').then(() => {
      throw new Error(`The ${this.name} did not start; what it wrote above says why.`);
    });
    const [ready] = (await Promise.race([once(child, 'message'), ended])) as [Ready];
    child.once('exit', () => {
      for (const listener of this.#listeners) listener(this.name);
    });
    return ready;
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const timer = setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS);
    child.kill('SIGTERM');
    await once(child, 'exit');
    clearTimeout(timer);
  }
}
