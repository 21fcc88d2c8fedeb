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
import { FaultyStore } from './faulty-store.js';
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
    const { connection, rest } = await uploadInFlight(program);
    program.signal('SIGTERM');
    await until(() => program.stdout.includes('listener closed'));
    await expect(RawConnection.open(program.port)).rejects.toThrow(/ECONNREFUSED/);
    await new Promise((done) => setTimeout(done, 300));
    connection.write(rest);
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

  it.each([
    ['whose next request stops in the middle of its head', 'GET /health HTTP/1.1\r\nHost: nar', 0],
    ['whose next request comes byte by byte', 'GET /health HTTP/1.1\r\nX-A: ', 100],
    [
      'whose body never comes',
      'GET /health/live HTTP/1.1\r\nHost: naru.test\r\nContent-Length: 9\r\n\r\n',
      0,
    ],
  ])('closes a connection %s', async (_, begun, dripMs) => {
    const program = await start({ SHUTDOWN_TIMEOUT_MS: '15000' });
    const connection = await RawConnection.open(program.port);
    connection.write('GET /health/live HTTP/1.1\r\nHost: naru.test\r\n\r\n');
    await connection.receive(/"status":"ok"/);
    connection.write(begun);
    const drip = dripMs > 0 ? setInterval(() => connection.write('a'), dripMs) : undefined;
    await new Promise((done) => setTimeout(done, 200));
    program.signal('SIGTERM');
    expect(await program.exited).toEqual([0, null]);
    clearInterval(drip);
  });

  it('tells how long each phase took', async () => {
    const program = await start({ DRAIN_DELAY_MS: '300' });
    await program.stop();
    const stages = program.lines.filter(({ msg }) => /^drain/.test(msg ?? ''));
    expect(stages).toMatchObject([
      { msg: 'draining: not ready, still serving', delayMs: 300 },
      { msg: 'draining: listener closed, finishing requests in flight', inFlight: 0 },
      { msg: 'drained', clean: true },
    ]);
    const [, , { servingMs, finishingMs, durationMs }] = stages as unknown as [
      unknown,
      unknown,
      Record<string, number>,
    ];
    expect(servingMs).toBeGreaterThanOrEqual(290);
    expect(finishingMs).toBeGreaterThanOrEqual(0);
    expect(durationMs).toBeGreaterThanOrEqual(servingMs! + finishingMs! - 2);
  });

  it('aborts what outlasts the grace period, leaves nothing of it, says what it was, and exits 1', async () => {
    const program = await start({ SHUTDOWN_TIMEOUT_MS: '1000' });
    const body = multipart({ bytes: await smallPhoto() }, { bytes: await photoOf(12 * MiB) });
    const connection = await RawConnection.open(program.port);
    const head = { 'Content-Length': body.length, 'X-Request-Id': 'the-slow-one' };
    connection.write(postHead(head).replace(' /images ', ' /images?token=hush '));
    connection.write(body.subarray(0, 11 * MiB));
    await until(async () => (await bucket.unfinished()).length === 1);
    program.signal('SIGTERM');
    expect(await connection.receive(/"requestId"/)).toMatch(/^HTTP\/1\.1 503 [\s\S]*"code":"DRAINING"/);
    expect(await program.exited).toEqual([1, null]);
    const cut = program.lines.find(({ msg }) => msg === 'request cut');
    expect(cut).toMatchObject({
      level: 'error',
      requestId: 'the-slow-one',
      replica: 'test-replica',
      method: 'POST',
      path: '/images',
      images: 2,
    });
    expect(cut!['receivedBytes']).toBeGreaterThan(6 * MiB);
    expect(cut!['receivedBytes']).toBeLessThanOrEqual(11 * MiB);
    expect(program.lines.at(-2)).toMatchObject({
      msg: 'grace period over: requests cut',
      uploads: 1,
      others: 0,
      clear: true,
    });
    expect(program.lines.at(-1)).toMatchObject({ msg: 'drained', clean: false });
    expect(await bucket.unfinished()).toEqual([]);
    expect(await bucket.keys()).toEqual([]);
  });

  it('a second signal ends it at once, with 1 and the word what was cut', async () => {
    const program = await start({ SHUTDOWN_TIMEOUT_MS: '60000' });
    const upload = await uploadInFlight(program);
    program.signal('SIGTERM');
    await until(() => program.stdout.includes('listener closed'));
    // Within 250 ms of the first it would be the same one, from a terminal or npm.
    await new Promise((resolve) => setTimeout(resolve, 300));
    program.signal('SIGINT');
    expect(await program.exited).toEqual([1, null]);
    expect(program.lines.at(-1)).toMatchObject({
      msg: 'stopping at once: a second signal',
      signal: 'SIGINT',
      cut: [{ method: 'POST', path: '/images', images: 1 }],
    });
    upload.connection.destroy();
  });

  it('takes two signals at once for one', async () => {
    const program = await start({ SHUTDOWN_TIMEOUT_MS: '60000' });
    const { connection, rest } = await uploadInFlight(program);
    program.signal('SIGTERM');
    program.signal('SIGINT');
    await until(() => program.stdout.includes('listener closed'));
    connection.write(rest);
    expect(await connection.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 /);
    expect(await program.exited).toEqual([0, null]);
  });

  it('ends with 0 while it still waits for its store to start', async () => {
    const store = await FaultyStore.start(bucket.endpoint);
    store.fault = () => 'hang';
    const program = ReplicaProcess.launch({
      ...environmentFor(bucket),
      LOG_LEVEL: 'info',
      S3_ENDPOINT: store.url,
    });
    await until(() => store.seen.length > 0, 25_000);
    program.signal('SIGTERM');
    expect(await program.exited).toEqual([0, null]);
    expect(program.stdout).not.toContain('listening');
    await store.close();
  });

  it('ends with 0 in its first instants, when nothing of it is loaded', async () => {
    // The hook sends the signal when the first module of Nest is looked for.
    const hook = `export function resolve(name, context, next) {
      if (name.startsWith('@nestjs/')) process.kill(process.pid, 'SIGTERM');
      return next(name, context);
    }`;
    const register = `import { register } from 'node:module'; register(${JSON.stringify(dataUrl(hook))});`;
    const program = await ReplicaProcess.run({
      ...environmentFor(bucket),
      LOG_LEVEL: 'info',
      NODE_OPTIONS: `--import ${dataUrl(register)}`,
    });
    expect(program.exitCode).toBe(0);
    expect(program.stdout).not.toContain('listening');
  });

  it('ends though nobody reads its log any more', async () => {
    const program = await start({});
    program.stopReading();
    program.signal('SIGTERM');
    expect(await program.exited).toEqual([0, null]);
  });

  /** An image of which the store has a part, and what is missing of it. */
  async function uploadInFlight(program: ReplicaProcess) {
    const body = multipart({ bytes: await photoOf(8 * MiB) });
    const connection = await RawConnection.open(program.port);
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body.subarray(0, 6 * MiB));
    await until(async () => (await bucket.unfinished()).length === 1);
    return { connection, rest: body.subarray(6 * MiB) };
  }
});

function dataUrl(script: string): string {
  return `data:text/javascript,${encodeURIComponent(script).replaceAll("'", '%27')}`;
}
