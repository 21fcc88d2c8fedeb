import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

/** Longer than a program takes to end by itself when nobody uses it any more. */
const KILL_AFTER_MS = 30_000;

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

  async stop(killAfterMs = KILL_AFTER_MS): Promise<void> {
    const child = this.#process;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs);
    child.kill('SIGTERM');
    await once(child, 'exit');
    clearTimeout(timer);
  }
}
