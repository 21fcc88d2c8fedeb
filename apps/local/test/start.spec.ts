import { type ChildProcess, exec, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const ROOT = join(import.meta.dirname, '../../..');
const SAMPLE = readFileSync(join(ROOT, 'loadtest/images/hubble-900kB.jpg'));

/** `npm start`, as a user runs it. */
class Start {
  output = '';
  readonly exited: Promise<unknown[]>;

  constructor(
    readonly npm: ChildProcess,
    readonly url: string,
  ) {
    this.exited = once(npm, 'close');
    for (const stream of [npm.stdout, npm.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    }
  }

  static run(port: number, ...words: string[]): Start {
    const npm = spawn('npm', ['start', '--silent', '--', '--port', String(port), ...words], {
      cwd: ROOT,
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'] },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new Start(npm, `http://localhost:${port}`);
  }

  async ready(): Promise<this> {
    while (!this.output.includes('Ctrl-C')) {
      if (this.npm.exitCode !== null) throw new Error(`it ended: ${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  const opened = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return opened;
}

describe('npm start', () => {
  let data: string;
  let port: number;

  beforeAll(async () => {
    data = mkdtempSync(join(tmpdir(), 'naru-start-'));
    port = await freePort();
  });
  afterAll(() => {
    rmSync(data, { recursive: true });
  });

  it('prints an address and a curl line that works, keeps images over a restart, and leaves nothing running', async () => {
    const first = await Start.run(port, '--data', data).ready();
    expect(first.output).toContain(first.url);
    const [, curl = ''] = /(curl .*)/.exec(first.output) ?? [];
    const { stdout } = await promisify(exec)(curl, { cwd: ROOT });
    const [image] = (JSON.parse(stdout) as { images: [{ url: string; bytes: number }] }).images;
    expect(image.bytes).toBe(SAMPLE.length);

    const taken = Start.run(port, '--data', data);
    expect(await taken.exited).toEqual([1, null]);
    expect(taken.output).toContain(`Port ${port} is in use`);

    first.npm.kill('SIGINT');
    expect(await first.exited).toEqual([0, null]);
    expect(await isOpen(port)).toBe(false);

    const second = await Start.run(port, '--data', data).ready();
    const response = await fetch(image.url);
    expect(Buffer.from(await response.arrayBuffer()).equals(SAMPLE)).toBe(true);
    second.npm.kill('SIGTERM');
    expect(await second.exited).toEqual([0, null]);
    expect(await isOpen(port)).toBe(false);
  });

  it('ends everything when npm is killed', async () => {
    const start = await Start.run(port, '--data', data).ready();
    start.npm.kill('SIGKILL');
    // The pipes close when the last of its processes has ended.
    await start.exited;
    expect(await isOpen(port)).toBe(false);
  });

  it.each([
    ['--port', '70000'],
    ['--store', 'not a url'],
    ['--nonsense', 'x'],
  ])('refuses %s %s with one message', async (...words) => {
    const start = Start.run(port, ...words);
    expect(await start.exited).toEqual([1, null]);
    expect(start.output).toContain(words[0]);
    expect(start.output).not.toContain('    at ');
  });
});
