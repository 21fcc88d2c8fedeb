import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const SCRIPT = resolve(import.meta.dirname, '../../../../deploy/nginx/balancer.sh');
const POLL_MS = 25;

/**
 * nginx knows nothing of us; this shell script, which becomes nginx, leaves a watcher behind. It waits for the
 * end of the pipe on 3, which comes when we close it, and also when we are killed. nginx then takes nothing new
 * and finishes what it has, for two seconds: a client that has stalled would hold it for minutes.
 */
const START = `
{
  read -r _ <&3
  kill -QUIT $$
  tenths=0
  while [ $tenths -lt 20 ] && kill -0 $$; do
    sleep 0.1
    tenths=$((tenths + 1))
  done
  kill -TERM $$
} >/dev/null 2>&1 &
exec sh "$0" start "$1"
`;

/** The machine's nginx, by deploy/nginx/balancer.sh. Replicas are given as LB_REPLICAS names them. */
export class Balancer {
  readonly #listeners: ((name: string) => void)[] = [];
  #process: ChildProcess | undefined;

  constructor(
    /** Where it keeps what it writes. */
    private readonly dir: string,
    /** Of balancer.sh. */
    private readonly settings: NodeJS.ProcessEnv,
  ) {}

  onExit(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Rejects with what is wrong with the settings, all of it at once. */
  check(): Promise<void> {
    return this.#run('check', ['127.0.0.1:1']);
  }

  /** Resolves when it takes requests. */
  async start(replicas: readonly string[]): Promise<void> {
    this.#list(replicas);
    const nginx = spawn('sh', ['-c', START, SCRIPT, this.dir], {
      env: this.#environment(replicas),
      // A group of its own: Ctrl-C would have nginx cut what it has.
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    });
    this.#process = nginx;
    let isReady = false;
    nginx.once('exit', () => {
      if (nginx.pid !== undefined) killGroup(nginx.pid);
      if (isReady) for (const listener of this.#listeners) listener('nginx');
    });
    while (!this.#isListening(nginx)) {
      if (hasEnded(nginx)) throw new Error('nginx did not start; what it wrote above says why.');
      await sleep(POLL_MS);
    }
    isReady = true;
  }

  /** Has it send what is new to these; what it has it finishes. Rejects with its message, and changes nothing, if it won't. */
  use(replicas: readonly string[]): Promise<void> {
    this.#list(replicas);
    return this.#run('refresh', replicas);
  }

  async stop(): Promise<void> {
    const nginx = this.#process;
    if (nginx === undefined || hasEnded(nginx)) return;
    const exited = once(nginx, 'exit');
    nginx.stdio[3]?.destroy();
    await exited;
  }

  async #run(action: string, replicas: readonly string[]): Promise<void> {
    const { failed, stderr } = await new Promise<{ failed: boolean; stderr: string }>((done) => {
      execFile('sh', [SCRIPT, action, this.dir], { env: this.#environment(replicas) }, (error, _, stderr) =>
        done({ failed: error !== null, stderr }),
      );
    });
    if (failed) throw new Error(stderr.trim());
  }

  /** nginx writes this file once it has its ports. A connection to find out would be counted, and at L4 reach a replica. */
  #isListening(nginx: ChildProcess): boolean {
    try {
      return readFileSync(join(this.dir, 'nginx.pid'), 'utf8').trim() === String(nginx.pid);
    } catch {
      return false;
    }
  }

  /** balancer.sh looks at it now and then by itself. */
  #list(replicas: readonly string[]): void {
    const file = this.#file;
    mkdirSync(this.dir, { recursive: true });
    writeFileSync(`${file}.new`, `${replicas.join(', ')}\n`);
    renameSync(`${file}.new`, file);
  }

  get #file(): string {
    return join(this.dir, 'serving');
  }

  #environment(replicas: readonly string[]): NodeJS.ProcessEnv {
    return {
      ...this.settings,
      PATH: folders().join(delimiter),
      LB_REPLICAS: replicas.join(', '),
      LB_REPLICAS_FILE: this.#file,
    };
  }
}

/** Throws with how to get nginx when this machine has none. */
export function assertNginx(): void {
  const isThere = folders().some((folder) => {
    try {
      accessSync(join(folder, 'nginx'), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (isThere) return;
  throw new Error(
    [
      '--replicas needs nginx, and this machine has none.',
      '  Debian, Ubuntu   sudo apt install nginx libnginx-mod-stream',
      '  macOS            brew install nginx',
      '  without it       npm start, or docker compose up --scale api=3',
    ].join('\n'),
  );
}

/** Where programs are looked for. Debian keeps nginx in the sbin of a bin, which it leaves out for plain users. */
function folders(): string[] {
  const path = (process.env['PATH'] ?? '').split(delimiter);
  return [...new Set([...path, ...path.map((folder) => folder.replace(/\/bin\/?$/, '/sbin'))])];
}

/** nginx's workers outlive their master if that is killed. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGTERM');
  } catch {
    // Nobody is left.
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}
