import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { BadInput, RunFailed } from './problem.js';
import { cpuSeconds, docker } from './stack/docker.js';
import { processOf } from './stack/processes.js';

const SCRIPTS = resolve(import.meta.dirname, '../../../../loadtest');
const IMAGE = process.env['K6_IMAGE'] || 'grafana/k6:2.1.0';

/** k6's own: a threshold was missed; the run itself is whole. */
const THRESHOLDS_MISSED = 99;

/** What a script found, as loadtest/lib/result.js describes it; only what is used here. */
export interface Result {
  readonly version: number;
  readonly question: string;
  readonly startedAt: string;
  readonly durationSeconds: number;
  readonly requests: number;
  readonly uploads: number;
  readonly bytes: number;
  readonly errors: number;
  readonly errorsByStatus: Record<string, number>;
  readonly latencyMs: { readonly p50: number; readonly p95: number; readonly p99: number } | null;
  readonly byReplica: Record<string, number>;
  readonly connections: number;
  readonly droppedIterations: number;
  readonly vusMax: number;
  readonly vusExhausted: boolean;
  readonly aborted: boolean;
  readonly thresholds: readonly {
    readonly metric: string;
    readonly threshold: string;
    readonly ok: boolean;
  }[];
  readonly series?: readonly {
    readonly second: number;
    readonly seconds: number;
    readonly answered: number;
    readonly errors: number;
    readonly p95Ms: number | null;
  }[];
}

/** How far a run of k6 is. */
export interface Progress {
  readonly seconds: number;
  readonly iterations: number;
}

/** The load generator: k6 of PATH, else of its image. */
export class K6 {
  #child: ChildProcess | undefined;
  #container: string | undefined;

  private constructor(
    readonly version: string,
    private readonly isImage: boolean,
  ) {}

  /** @throws BadInput when there is neither */
  static async find(): Promise<K6> {
    try {
      const { stdout } = await promisify(execFile)('k6', ['version']);
      return new K6(versionOf(stdout), false);
    } catch {
      // Then by Docker.
    }
    try {
      return new K6(versionOf(await docker(['run', '--rm', IMAGE, 'version'])), true);
    } catch (error) {
      throw new BadInput(
        [
          `The load is made by k6, which is neither in PATH nor to be had by Docker (${IMAGE}).`,
          '  install it    https://grafana.com/docs/k6/latest/set-up/install-k6/',
          '  or by Docker  start it; K6_IMAGE names another image',
          `  Docker says   ${(error as Error).message.split('\n').slice(1).join(' ').trim()}`,
        ].join('\n'),
      );
    }
  }

  /** CPU used so far by the run that goes on; null: none does. */
  async cpuSeconds(): Promise<number | null> {
    if (this.#container !== undefined) return cpuSeconds(this.#container).catch(() => null);
    return (this.#child?.pid !== undefined && processOf(this.#child.pid)?.cpuSeconds) || null;
  }

  /**
   * Runs a script of loadtest/ with these variables. Rejects with what k6 said when it has no result. What is secret has
   * to be in our own environment, where k6 finds it: a command line can be read by everybody.
   */
  async run(
    script: string,
    variables: Record<string, string>,
    onProgress: (progress: Progress) => void = () => undefined,
  ): Promise<Result> {
    const folder = await mkdtemp(join(tmpdir(), 'naru-k6-'));
    try {
      const child = this.isImage
        ? this.#inImage(script, variables, folder)
        : this.#inPath(script, variables, folder);
      this.#child = child;
      let output = '';
      for (const stream of [child.stdout, child.stderr]) {
        stream?.setEncoding('utf8').on('data', (text: string) => {
          output = (output + text).slice(-100_000);
          const seen = [...text.matchAll(/running \(([\dhms.]+)\).*?, (\d+) complete/g)].at(-1);
          if (seen) onProgress({ seconds: secondsOf(seen[1] ?? ''), iterations: Number(seen[2]) });
        });
      }
      const [code] = (await once(child, 'close')) as [number | null];
      const result = await readFile(join(folder, 'result.json'), 'utf8').catch(() => undefined);
      if ((code !== 0 && code !== THRESHOLDS_MISSED) || result === undefined) {
        throw new RunFailed(
          `k6 did not finish ${script}.js (exit code ${code ?? 'none: it was ended'}):\n${said(output)}`,
        );
      }
      const parsed = JSON.parse(result) as Result;
      if (parsed.version !== 1) throw new RunFailed(`${script}.js wrote a result of another version.`);
      return parsed;
    } finally {
      this.#child = undefined;
      this.#container = undefined;
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** Resolves when nothing of it is left. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, 'close');
    if (this.#container !== undefined) await docker(['kill', this.#container]).catch(() => undefined);
    child.kill('SIGKILL');
    await closed;
  }

  #inPath(script: string, variables: Record<string, string>, folder: string): ChildProcess {
    return spawn('k6', ['run', '--no-usage-report', join(SCRIPTS, `${script}.js`)], {
      env: { ...process.env, ...variables, RESULT: join(folder, 'result.json') },
      // A group of its own: upon Ctrl-C we end it.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  #inImage(script: string, variables: Record<string, string>, folder: string): ChildProcess {
    this.#container = `naru-k6-${process.pid}-${Date.now()}`;
    const all = { ...variables, RESULT: '/results/result.json' };
    // By name alone: Docker takes the values from the environment.
    const names = [...Object.keys(all), ...(process.env['API_KEY'] ? ['API_KEY'] : [])];
    const user =
      process.getuid === undefined ? [] : ['--user', `${process.getuid()}:${process.getgid?.() ?? 0}`];
    const words = [
      ...['run', '--rm', '--name', this.#container, '--network', 'host', ...user],
      ...names.flatMap((name) => ['--env', name]),
      ...['--volume', `${SCRIPTS}:/loadtest:ro`, '--volume', `${folder}:/results`, IMAGE],
      ...['run', '--no-usage-report', `/loadtest/${script}.js`],
    ];
    return spawn('docker', words, {
      env: { ...process.env, ...all },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }
}

function versionOf(text: string): string {
  return /v?\d+\.\d+\.\d+/.exec(text)?.[0] ?? text.trim();
}

/** Of k6's `1m02.5s`. */
function secondsOf(text: string): number {
  const [, h = 0, m = 0, s = 0] = /^(?:(\d+)h)?(?:(\d+)m)?(?:([\d.]+)s)?$/.exec(text) ?? [];
  return Number(h) * 3600 + Number(m) * 60 + Number(s);
}

/** What k6 wrote, without its logo and its progress. */
function said(output: string): string {
  const errors = output.split('\n').filter((line) => /level=error|error|abort/i.test(line));
  const lines = errors.length > 0 ? errors : output.split('\n').filter((line) => line.trim() !== '');
  return lines.slice(-5).join('\n');
}
