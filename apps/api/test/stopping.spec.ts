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
import { ReplicaProcess } from './replica-process.js';

describe('A replica that is told to stop', () => {
  let bucket: Bucket;

  beforeAll(async () => {
    bucket = await Bucket.open();
  });
  afterEach(() => bucket.empty());
  afterAll(() => bucket.close());

  function start(environment: NodeJS.ProcessEnv): Promise<ReplicaProcess> {
    return ReplicaProcess.start({
      ...environmentFor(bucket),
      LOG_LEVEL: 'info',
      SHUTDOWN_TIMEOUT_MS: '5000',
      ...environment,
    });
  }

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'by %s is not ready at once, and still serves while its listener is open',
    async (signal) => {
      const program = await start({ DRAIN_DELAY_MS: '600' });
      await program.http.get('/health/ready').expect(200);
      program.signal(signal);
      await until(() => program.stdout.includes('draining: not ready'));
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
    const program = await start({});
    const body = multipart({ bytes: await photoOf(8 * MiB) });
    const connection = await RawConnection.open(program.port);
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body.subarray(0, 6 * MiB));
    await until(async () => (await bucket.unfinished()).length === 1);
    program.signal('SIGTERM');
    await until(() => program.stdout.includes('listener closed'));
    await expect(RawConnection.open(program.port)).rejects.toThrow(/ECONNREFUSED/);
    await new Promise((done) => setTimeout(done, 300));
    connection.write(body.subarray(6 * MiB));
    expect(await connection.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 [\s\S]*Connection: close/);
    expect(await program.exited).toEqual([0, null]);
    expect(await bucket.keys()).toHaveLength(1);
  });

  it('closes idle connections rather than wait for them', async () => {
    const program = await start({});
    const connection = await RawConnection.open(program.port);
    connection.write('GET /health/live HTTP/1.1\r\nHost: naru.test\r\n\r\n');
    await connection.receive(/"status":"ok"/);
    program.signal('SIGTERM');
    // Left to Node, the connection would be kept until SHUTDOWN_TIMEOUT_MS, and the exit code be 1.
    expect(await program.exited).toEqual([0, null]);
  });

  it('aborts what outlasts the grace period, leaves nothing of it, and exits 1', async () => {
    const program = await start({ SHUTDOWN_TIMEOUT_MS: '1000' });
    const body = multipart({ bytes: await photoOf(12 * MiB) });
    const connection = await RawConnection.open(program.port);
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body.subarray(0, 11 * MiB));
    await until(async () => (await bucket.unfinished()).length === 1);
    program.signal('SIGTERM');
    expect(await connection.receive(/"requestId"/)).toMatch(/^HTTP\/1\.1 503 [\s\S]*"code":"DRAINING"/);
    expect(await program.exited).toEqual([1, null]);
    expect(program.stdout).toContain('"msg":"grace period over: requests cut","uploads":1');
    expect(await bucket.unfinished()).toEqual([]);
    expect(await bucket.keys()).toEqual([]);
  });
});
