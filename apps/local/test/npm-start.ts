import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientRequest, type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

export const ROOT = join(import.meta.dirname, '../../..');
export const SAMPLE = readFileSync(join(ROOT, 'loadtest/images/hubble-900kB.jpg'));
const { PATH, HOME } = process.env;

export interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
}

/** A command of the README, as a user runs it. */
export class Npm {
  output = '';
  readonly exited: Promise<unknown[]>;

  constructor(readonly npm: ChildProcess) {
    // Comes when the last of its processes has closed its pipes.
    this.exited = once(npm, 'close');
    for (const stream of [npm.stdout, npm.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    }
  }

  static run(script: string, words: readonly string[], env: NodeJS.ProcessEnv = {}): Npm {
    return new Npm(spawn('npm', ['run', script, '--silent', '--', ...words], options(env)));
  }

  async says(text: string | RegExp): Promise<void> {
    await until(() => {
      if (this.npm.exitCode !== null) throw new Error(`it ended: ${this.output}`);
      return typeof text === 'string' ? this.output.includes(text) : text.test(this.output);
    });
  }
}

export class Start extends Npm {
  readonly url: string;

  constructor(
    npm: ChildProcess,
    readonly port: number,
  ) {
    super(npm);
    this.url = `http://localhost:${port}`;
  }

  static at(port: number, words: readonly string[], env: NodeJS.ProcessEnv = {}): Start {
    return new Start(
      spawn('npm', ['start', '--silent', '--', '--port', String(port), ...words], options(env)),
      port,
    );
  }

  async ready(): Promise<this> {
    await this.says('Ctrl-C');
    return this;
  }

  /** On a connection of its own. */
  async get(path: string): Promise<Answer> {
    return answerTo(request(`http://127.0.0.1:${this.port}${path}`, { agent: false }).end());
  }

  async upload(image: Buffer): Promise<Answer> {
    return answerTo(this.startUpload({}).end(form(image)));
  }

  /** An upload whose body is still to come; nginx has chosen a replica when it emits `continue`. */
  startUpload(headers: Record<string, string>): ClientRequest {
    return request(`http://127.0.0.1:${this.port}/images`, {
      method: 'POST',
      agent: false,
      headers: { 'content-type': 'multipart/form-data; boundary=naru', ...headers },
    });
  }

  /** Of every process below npm. */
  pids(words = ''): number[] {
    const all = processes();
    const below = (parent: number): Process[] =>
      all.filter(({ ppid }) => ppid === parent).flatMap((child) => [child, ...below(child.pid)]);
    return below(this.npm.pid!)
      .filter(({ args }) => args.includes(words))
      .map(({ pid }) => pid);
  }
}

interface Process {
  readonly pid: number;
  readonly ppid: number;
  readonly args: string;
}

/** What runs on this machine; a zombie doesn't. */
export function processes(): Process[] {
  return execFileSync('ps', ['-A', '-ww', '-o', 'pid=,ppid=,stat=,args='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => /^ *(\d+) +(\d+) +([^Z ]+) +(.*)/.exec(line))
    .filter((found) => found !== null)
    .map(([, pid, ppid, , args = '']) => ({ pid: Number(pid), ppid: Number(ppid), args }));
}

/** An image like no other. */
export function photograph(comment: string): Buffer {
  const segment = Buffer.from(`\xff\xfe\0\0${comment}`, 'latin1');
  segment.writeUInt16BE(segment.length - 2, 2);
  return Buffer.concat([SAMPLE.subarray(0, 2), segment, SAMPLE.subarray(2)]);
}

export function form(image: Buffer): Buffer {
  const head = '--naru\r\ncontent-disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n';
  return Buffer.concat([Buffer.from(head), image, Buffer.from('\r\n--naru--\r\n')]);
}

export async function answerTo(sent: ClientRequest): Promise<Answer> {
  const [response] = await once(sent, 'response');
  return { status: response.statusCode, headers: response.headers, bytes: await buffer(response) };
}

export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(20);
}

export async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  const opened = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return opened;
}

function options(env: NodeJS.ProcessEnv) {
  const stdio: ['ignore', 'pipe', 'pipe'] = ['ignore', 'pipe', 'pipe'];
  return { cwd: ROOT, env: { PATH, HOME, ...env }, stdio };
}
