import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import supertest from 'supertest';
import {
  Bucket,
  environmentFor,
  MiB,
  multipart,
  photoOf,
  postHead,
  RawConnection,
  smallPhoto,
  until,
} from './harness.js';

const MAIN = resolve(import.meta.dirname, '../../../dist/apps/api/src/main.js');

/** The built program as a process of its own: signals and exit codes are what this is about. */
class Program {
  log = '';
  readonly exited: Promise<unknown[]>;

  private constructor(
    readonly process: ChildProcess,
    readonly port: number,
  ) {
    this.exited = once(process, 'exit');
    for (const stream of [process.stdout, process.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.log += chunk.toString()));
    }
  }

  static async start(bucket: Bucket, environment: NodeJS.ProcessEnv = {}): Promise<Program> {
    const port = await freePort();
    const env = {
      ...process.env,
      ...environmentFor(bucket),
      LOG_LEVEL: 'info',
      PORT: String(port),
      DRAIN_DELAY_MS: '600',
      SHUTDOWN_TIMEOUT_MS: '5000',
      ...environment,
    };
    const program = new Program(
      spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'pipe', 'pipe'] }),
      port,
    );
    await until(() => program.log.includes('"msg":"listening"'));
    return program;
  }

  get http() {
    return supertest(`http://127.0.0.1:${this.port}`);
  }

  stop(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.process.kill(signal);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

describe('A replica that is told to stop', () => {
  let bucket: Bucket;

  beforeAll(async () => {
    bucket = await Bucket.open();
  });
  afterEach(() => bucket.empty());
  afterAll(() => bucket.close());

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'by %s is not ready at once, and still serves while its listener is open',
    async (signal) => {
      const program = await Program.start(bucket);
      await program.http.get('/health/ready').expect(200);
      program.stop(signal);
      await until(() => program.log.includes('draining: not ready'));
      const { body } = await program.http.get('/health/ready').expect(503);
      expect(body.details.replica).toMatchObject({ status: 'down', message: 'draining' });
      await program.http.get('/health/live').expect(200);
      const { headers } = await program.http
        .post('/images')
        .attach('images', await smallPhoto(), 'a.jpg')
        .expect(201);
      // A kept connection would bring the next request here.
      expect(headers['connection']).toBe('close');
      expect(await program.exited).toEqual([0, null]);
    },
  );

  it('finishes an upload in flight and exits 0', async () => {
    const program = await Program.start(bucket, { DRAIN_DELAY_MS: '0' });
    const body = multipart({ bytes: await photoOf(8 * MiB) });
    const connection = await RawConnection.open(program.port);
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body.subarray(0, 6 * MiB));
    await until(async () => (await bucket.unfinished()).length === 1);
    program.stop();
    await until(() => program.log.includes('listener closed'));
    await expect(RawConnection.open(program.port)).rejects.toThrow(/ECONNREFUSED/);
    await new Promise((done) => setTimeout(done, 300));
    connection.write(body.subarray(6 * MiB));
    expect(await connection.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 [\s\S]*Connection: close/);
    expect(await program.exited).toEqual([0, null]);
    expect(await bucket.keys()).toHaveLength(1);
  });

  it('closes idle connections rather than wait for them', async () => {
    const program = await Program.start(bucket, { DRAIN_DELAY_MS: '0' });
    const connection = await RawConnection.open(program.port);
    connection.write('GET /health/live HTTP/1.1\r\nHost: naru.test\r\n\r\n');
    await connection.receive(/"status":"ok"/);
    const started = Date.now();
    program.stop();
    expect(await program.exited).toEqual([0, null]);
    // Left to Node, the connection would be kept until SHUTDOWN_TIMEOUT_MS.
    expect(Date.now() - started).toBeLessThan(4_000);
  });

  it('aborts what outlasts the grace period, leaves nothing of it, and exits 1', async () => {
    const program = await Program.start(bucket, { DRAIN_DELAY_MS: '0', SHUTDOWN_TIMEOUT_MS: '1000' });
    const body = multipart({ bytes: await photoOf(12 * MiB) });
    const connection = await RawConnection.open(program.port);
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body.subarray(0, 11 * MiB));
    await until(async () => (await bucket.unfinished()).length === 1);
    program.stop();
    expect(await connection.receive(/"requestId"/)).toMatch(/^HTTP\/1\.1 503 [\s\S]*"code":"DRAINING"/);
    expect(await program.exited).toEqual([1, null]);
    expect(program.log).toContain('"msg":"grace period over: requests cut","uploads":1');
    expect(await bucket.unfinished()).toEqual([]);
    expect(await bucket.keys()).toEqual([]);
  });

  it('says which port is taken and exits 1', async () => {
    const first = await Program.start(bucket);
    const second = spawn(process.execPath, [MAIN], {
      env: { ...process.env, ...environmentFor(bucket), PORT: String(first.port), LOG_LEVEL: 'silent' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let message = '';
    second.stderr.on('data', (chunk: Buffer) => (message += chunk.toString()));
    expect(await once(second, 'exit')).toEqual([1, null]);
    expect(message).toBe(`Naru can't start: port ${first.port} is in use; set PORT to another one\n`);
    first.stop();
    await first.exited;
  });
});
