import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import supertest from 'supertest';
import { until } from './harness.js';

const MAIN = join(import.meta.dirname, '../../../dist/apps/api/src/main.js');

export interface LogLine extends Record<string, unknown> {
  level: string;
  msg?: string;
  requestId?: string;
}

/** The built program as a process of its own, with nothing in its environment but what is given. */
export class ReplicaProcess {
  stdout = '';
  stderr = '';
  /** Resolves with its exit code, or null and the signal that ended it. */
  readonly exited: Promise<unknown[]>;
  readonly #child: ChildProcess;
  #port = 0;

  private constructor(environment: NodeJS.ProcessEnv) {
    if (!existsSync(MAIN)) throw new Error('the program is not built; npm test builds it');
    this.#child = spawn(process.execPath, ['--enable-source-maps', MAIN], {
      env: { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true', ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exited = once(this.#child, 'close');
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
  }

  /** Without waiting for it to listen. */
  static launch(environment: NodeJS.ProcessEnv): ReplicaProcess {
    return new ReplicaProcess({ HOST: '127.0.0.1', PORT: '0', DRAIN_DELAY_MS: '0', ...environment });
  }

  /** Resolves once it listens. It has to log at info or below, which is how it tells its port. */
  static async start(environment: NodeJS.ProcessEnv): Promise<ReplicaProcess> {
    const replica = ReplicaProcess.launch(environment);
    const listening = () => replica.lines.find(({ msg }) => msg === 'listening');
    await until(() => listening() !== undefined || replica.#child.exitCode !== null, 50_000);
    const address = listening()?.['address'] as { port: number } | undefined;
    if (!address) throw new Error(`it ended instead of listening: ${replica.stderr}${replica.stdout}`);
    replica.#port = address.port;
    return replica;
  }

  /** For a program that is to end by itself; resolves with its exit code. */
  static async run(environment: NodeJS.ProcessEnv): Promise<ReplicaProcess & { exitCode: number | null }> {
    const replica = new ReplicaProcess(environment);
    const [exitCode] = (await replica.exited) as [number | null];
    return Object.assign(replica, { exitCode });
  }

  get http() {
    return supertest(`http://127.0.0.1:${this.#port}`);
  }

  get port(): number {
    return this.#port;
  }

  /** Every whole line of its log. */
  get lines(): LogLine[] {
    return this.stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as LogLine);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** From now on nobody reads its log: a write meets EPIPE. */
  stopReading(): void {
    this.#child.stdout!.destroy();
  }

  async stop(): Promise<void> {
    this.signal('SIGTERM');
    await this.exited;
  }
}
