import {
  Bucket,
  environmentFor,
  MiB,
  multipart,
  photo,
  photoOf,
  postHead,
  RawConnection,
  Replica,
  smallPhoto,
  until,
} from './harness.js';
import { FaultyStore } from './faulty-store.js';
import { type LogLine, ReplicaProcess } from './replica-process.js';
import { StoreProxy } from './store-proxy.js';

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;

describe('the log', () => {
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: ReplicaProcess;
  let small: Buffer;
  let path: string;

  beforeAll(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
    replica = await ReplicaProcess.start({
      ...environmentFor(bucket),
      S3_ENDPOINT: proxy.url,
      LOG_LEVEL: 'debug',
      REPLICA_ID: 'replica-7',
    });
    small = await smallPhoto(16);
    path = (await upload().expect(201)).body.images[0].url;
  });
  afterAll(async () => {
    await replica.stop();
    await proxy.down();
    await bucket.close();
  });

  const upload = () => replica.http.post('/images').attach('images', small, 'a.jpg');

  /** Every line of a request, once the one that ends it is there. */
  async function linesOf(requestId: string): Promise<LogLine[]> {
    const lines = () => replica.lines.filter((line) => line.requestId === requestId);
    await until(() => lines().some(({ res }) => res !== undefined));
    // Another one would come at once.
    await new Promise((resolve) => setTimeout(resolve, 50));
    return lines();
  }

  it.each([
    ['an upload', () => upload(), 'POST', '/images', 201, 'info'],
    ['a refused upload', () => replica.http.post('/images').send({}), 'POST', '/images', 415, 'warn'],
    ['a read', () => replica.http.get(path), 'GET', () => path, 200, 'info'],
    ['a head', () => replica.http.head(path), 'HEAD', () => path, 200, 'info'],
    ['a list', () => replica.http.get('/images?limit=1'), 'GET', '/images?limit=1', 200, 'info'],
    ['no such image', () => replica.http.get('/images/no'), 'GET', '/images/no', 404, 'warn'],
    ['no such route', () => replica.http.get('/nothing/here'), 'GET', '/nothing/here', 404, 'warn'],
    ['a path that is malformed', () => replica.http.get('/images/%zz'), 'GET', '/images/%zz', 400, 'warn'],
    ['a method that is not there', () => replica.http.put(path), 'PUT', () => path, 405, 'warn'],
    ['a probe', () => replica.http.get('/health/ready'), 'GET', '/health/ready', 200, 'debug'],
    ['metrics', () => replica.http.get('/metrics'), 'GET', '/metrics', 200, 'debug'],
  ])('has exactly one line for %s', async (what, ask, method, url, status, level) => {
    const id = `one-line-${what.replaceAll(' ', '-')}`;
    const response = await ask().set('X-Request-Id', id);
    expect(response.status).toBe(status);
    expect(await linesOf(id)).toEqual([
      expect.objectContaining({
        level,
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        replica: 'replica-7',
        requestId: id,
        req: expect.objectContaining({ method, url: typeof url === 'string' ? url : url() }),
        res: { statusCode: status },
        durationMs: expect.any(Number),
      }),
    ]);
  });

  it('has one line for a request that nobody waited for, and says so', async () => {
    const id = 'gone';
    const connection = await RawConnection.open(replica.port);
    connection.write(postHead({ 'Content-Length': 1_000_000, 'X-Request-Id': id }));
    connection.write(multipart({ bytes: small }).subarray(0, 500));
    await new Promise((resolve) => setTimeout(resolve, 100));
    connection.destroy();
    expect(await linesOf(id)).toEqual([
      expect.objectContaining({ level: 'info', msg: 'POST aborted', res: { statusCode: null } }),
    ]);
  });

  it('has one line for each of the requests on one connection, each with its own id', async () => {
    const connection = await RawConnection.open(replica.port);
    for (const id of ['first-of-two', 'second-of-two']) {
      connection.write(`GET /health/live HTTP/1.1\r\nHost: naru.test\r\nX-Request-Id: ${id}\r\n\r\n`);
    }
    await connection.receive(/(HTTP\/1\.1 200 OK[^]*){2}/);
    connection.destroy();
    for (const id of ['first-of-two', 'second-of-two']) expect(await linesOf(id)).toHaveLength(1);
  });

  it('has the id of the request in whatever is written on its behalf', async () => {
    await proxy.down();
    try {
      const uploaded = upload().set('X-Request-Id', 'upload-503').expect(503);
      const listed = replica.http.get('/images').set('X-Request-Id', 'list-503').expect(503);
      await Promise.all([uploaded, listed]);
    } finally {
      await proxy.up();
    }
    for (const id of ['upload-503', 'list-503']) {
      const lines = await linesOf(id);
      // The line that ends it, once, and what made it fail.
      expect(lines.filter(({ res }) => res !== undefined)).toEqual([
        expect.objectContaining({ level: 'error', res: { statusCode: 503 } }),
      ]);
      expect(JSON.stringify(lines)).toContain('ECONNREFUSED');
      expect(lines.every(({ level, replica }) => level === 'error' && replica === 'replica-7')).toBe(true);
    }
    // None of it without an id.
    expect(replica.lines.filter(({ level, requestId }) => level === 'error' && !requestId)).toEqual([]);
  });

  it('has the id even where the store breaks off in the middle of a read', async () => {
    const bytes = await photoOf(16 * MiB);
    const large = await replica.http.post('/images').attach('images', bytes, 'large.jpg').expect(201);
    proxy.bytesFromStore = 0;
    const connection = await RawConnection.open(replica.port);
    connection.socket.pause();
    connection.write(
      `GET ${large.body.images[0].url} HTTP/1.1\r\nHost: naru.test\r\nX-Request-Id: cut\r\n\r\n`,
    );
    await until(() => proxy.bytesFromStore > 64 * 1024);
    proxy.cut();
    connection.socket.resume();
    await connection.closed;
    const lines = await linesOf('cut');
    expect(lines).toEqual([
      expect.objectContaining({ level: 'error', msg: 'GET aborted', code: 'STORE_UNAVAILABLE' }),
    ]);
    expect(JSON.stringify(lines)).toContain('"code":"ECONNRESET"');
  });

  it('is JSON, a line each, whatever a client puts into its request', async () => {
    const connection = await RawConnection.open(replica.port);
    connection.write(
      'GET /images/a%0A{"level":"fatal"}\u2028"\\ HTTP/1.1\r\nHost: naru.test\r\nUser-Agent: a"b\\c\t\xe9\r\n\r\n',
    );
    await connection.receive(/\r\n\r\n/);
    connection.destroy();
    await replica.http.get('/images').set('X-Request-Id', 'after-it').expect(200);
    await linesOf('after-it');
    // `lines` parses every one.
    expect(replica.lines.filter(({ level }) => level === 'fatal')).toEqual([]);
  });

  it('is quiet about probes that are well, unless asked', async () => {
    const quiet = await ReplicaProcess.start({ ...environmentFor(bucket), LOG_LEVEL: 'info' });
    try {
      for (const probe of ['/health', '/health/live', '/health/ready', '/metrics']) {
        await quiet.http.get(probe).expect(200);
      }
      await quiet.http.get('/images').set('X-Request-Id', 'loud').expect(200);
      await until(() => quiet.lines.some(({ requestId }) => requestId === 'loud'));
      expect(quiet.lines.filter(({ req }) => req !== undefined)).toHaveLength(1);
    } finally {
      await quiet.stop();
    }
    expect(quiet.stderr).toBe('');
  });
});

describe('an answer', () => {
  let bucket: Bucket;
  let replica: Replica;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket, { REPLICA_ID: 'replica-9' });
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  it.each([
    ['GET', '/images', 200],
    ['GET', '/images/no', 404],
    ['GET', '/no/such/route', 404],
    ['GET', '/images/%zz', 400],
    ['PUT', '/images', 405],
    ['DELETE', '/health', 405],
    ['OPTIONS', '/images', 204],
    ['POST', '/images', 415],
    ['HEAD', '/images/no', 404],
    ['GET', '/health', 200],
    ['GET', '/health/live', 200],
    ['GET', '/health/ready', 200],
    ['GET', '/metrics', 200],
    ['GET', '/openapi.json', 200],
    ['GET', '/docs', 200],
  ])('to %s %s (%i) says which replica gave it, and to which request', async (method, path, status) => {
    const connection = await replica.connect();
    connection.write(`${method} ${path} HTTP/1.1\r\nHost: naru.test\r\nContent-Length: 0\r\n\r\n`);
    const text = await connection.receive(/\r\n\r\n/);
    connection.destroy();
    expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(text).toMatch(/^X-Served-By: replica-9\r$/m);
    expect(/^X-Request-Id: (.*)\r$/m.exec(text)?.[1]).toMatch(UUID);
  });

  it('does so even to what is not HTTP', async () => {
    const connection = await replica.connect();
    connection.write('HELLO\r\n\r\n');
    const text = await connection.receive(/"requestId":"[^"]+"/);
    await connection.closed;
    expect(text).toMatch(/^HTTP\/1\.1 400 /);
    expect(text).toMatch(/^X-Served-By: replica-9\r$/m);
    const [, id] = /^X-Request-Id: (.*)\r$/m.exec(text)!;
    expect(text).toContain(`"requestId":"${id}"`);
  });

  it.each(['abc', '7d3f9c2e-0000-4000-8000-000000000000', 'a.b_c-1', 'x'.repeat(128)])(
    'has the id of its request when the caller gave a sane one: %s',
    async (id) => {
      const { headers, body } = await replica.http.get('/no/such/route').set('X-Request-Id', id);
      expect(headers['x-request-id']).toBe(id);
      expect(body.requestId).toBe(id);
    },
  );

  it.each(['', 'a b', 'a"b', '<script>', 'x'.repeat(129), 'é', 'a,b', '{}', '../x', 'a;b'])(
    'has an id of its own when the caller gave an insane one: %j',
    async (id) => {
      const { headers, body } = await replica.http.get('/no/such/route').set('X-Request-Id', id);
      expect(headers['x-request-id']).toMatch(UUID);
      expect(body.requestId).toBe(headers['x-request-id']);
    },
  );

  it('has an id of its own when the caller gave two', async () => {
    const connection = await replica.connect();
    connection.write(
      'GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\nX-Request-Id: two\r\n\r\n',
    );
    const text = await connection.receive(/\r\n\r\n/);
    connection.destroy();
    expect(/^X-Request-Id: (.*)\r$/m.exec(text)?.[1]).toMatch(UUID);
  });
});

describe('GET /metrics', () => {
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: Replica;

  beforeEach(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
    replica = await Replica.start(bucket, { S3_ENDPOINT: proxy.url, S3_MAX_ATTEMPTS: '1' });
  });
  afterEach(async () => {
    await replica.close();
    await proxy.down();
    await bucket.close();
  });

  async function scrape(): Promise<string> {
    const { text, headers } = await replica.http.get('/metrics').expect(200);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    return text;
  }

  /** A sample's value by its name and labels; 0 when there is none yet. */
  async function metric(name: string, labels: Record<string, string | number> = {}): Promise<number> {
    const samples = (await scrape())
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    const all = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
    const sample = samples.find((line) => all.every((label) => line.includes(label)));
    return Number(sample?.slice(sample.lastIndexOf(' ') + 1) ?? 0);
  }

  it('counts uploads by what became of them, their bytes and their time', async () => {
    const images = [await photo(), await smallPhoto(32)];
    await replica.upload(...images).expect(201);
    await replica.upload(Buffer.from('%PDF-1.7 no image')).expect(415);
    await replica.upload(images[0]!.subarray(0, 1_000)).expect(422);
    expect(await metric('naru_uploads_total', { outcome: 'stored' })).toBe(2);
    expect(await metric('naru_uploads_total', { outcome: 'UNSUPPORTED_IMAGE' })).toBe(1);
    expect(await metric('naru_uploads_total', { outcome: 'CORRUPT_IMAGE' })).toBe(1);
    expect(await metric('naru_upload_bytes_total')).toBe(images[0]!.length + images[1]!.length);
    expect(await metric('naru_upload_duration_seconds_count')).toBe(2);
    expect(await metric('naru_upload_duration_seconds_sum')).toBeGreaterThan(0);
  });

  it('tells what is in flight while it is, and nothing of it afterwards', async () => {
    const body = multipart({ bytes: await photo() });
    const connections = await Promise.all([replica.connect(), replica.connect()]);
    for (const connection of connections) {
      connection.write(postHead({ 'Content-Length': body.length }));
      connection.write(body.subarray(0, 100_000));
    }
    await until(async () => (await metric('naru_uploads_in_flight')) === 2);
    // The request that asks is one as well.
    expect(await metric('naru_http_requests_in_flight')).toBe(3);
    expect(await metric('naru_upload_memory_bytes')).toBeGreaterThanOrEqual(2 * 100_000);

    const [finished, aborted] = connections;
    finished.write(body.subarray(100_000));
    await finished.receive(/"images":/);
    aborted.destroy();
    await until(async () => (await metric('naru_http_requests_in_flight')) === 1);
    expect(await metric('naru_uploads_in_flight')).toBe(0);
    expect(await metric('naru_upload_memory_bytes')).toBe(0);
    expect(await metric('naru_uploads_total', { outcome: 'stored' })).toBe(1);
    // A client that leaves is no failure of ours.
    expect(await metric('naru_uploads_total', { outcome: 'INTERNAL' })).toBe(0);
    finished.destroy();
  });

  it('times requests by method, route and status, never by id', async () => {
    const { body } = await replica.upload(await smallPhoto(16)).expect(201);
    await replica.http.get(body.images[0].url).expect(200);
    await replica.http.get('/images/no').expect(404);
    await replica.http.get('/no/such/route').expect(404);
    const count = (labels: Record<string, string | number>) =>
      metric('naru_http_request_duration_seconds_count', labels);
    expect(await count({ method: 'POST', status: 201 })).toBe(1);
    expect(await count({ method: 'GET', route: '/images/:id', status: 200 })).toBe(1);
    expect(await count({ method: 'GET', route: '/images/:id', status: 404 })).toBe(1);
    expect(await count({ method: 'GET', route: 'none', status: 404 })).toBe(1);
    expect(await scrape()).not.toMatch(/such\/route|images\/no|[\da-f]{32}/);
  });

  it('counts and times calls to the store by their outcome', async () => {
    const { body } = await replica.upload(await smallPhoto(16)).expect(201);
    const { url } = body.images[0];
    await replica.http.get(url).expect(200);
    await replica.http.get(`${url}/info`).expect(200);
    await replica.http.get('/images').expect(200);
    await replica.http.delete(url).expect(204);
    await replica.http.get(url).expect(404);
    await proxy.down();
    await replica.http.get(url).expect(503);
    const calls = (operation: string, outcome: string) =>
      metric('naru_store_call_duration_seconds_count', { operation, outcome });
    for (const operation of ['put', 'get', 'list', 'delete']) expect(await calls(operation, 'ok')).toBe(1);
    expect(await calls('head', 'ok')).toBe(2);
    expect(await calls('get', 'not_found')).toBe(1);
    expect(await calls('get', 'unavailable')).toBe(1);
  });

  it('tells how much memory uploads may take, and the id that this replica goes by', async () => {
    const limited = await Replica.start(bucket, {
      REPLICA_ID: 'replica-11',
      MAX_IMAGE_BYTES: String(MiB),
      MAX_UPLOAD_MEMORY_BYTES: String(64 * MiB),
    });
    try {
      const { text } = await limited.http.get('/metrics').expect(200);
      expect(text).toMatch(/^naru_upload_memory_limit_bytes 67108864$/m);
      expect(text).toMatch(/^naru_replica_info{replica="replica-11"} 1$/m);
    } finally {
      await limited.close();
    }
  });

  it('tells the lag of the event loop, and the memory of the process', async () => {
    const text = await scrape();
    for (const name of [
      'nodejs_eventloop_lag_seconds',
      'nodejs_eventloop_lag_p99_seconds',
      'process_resident_memory_bytes',
    ]) {
      expect(text).toMatch(new RegExp(`^${name}[ {].*\\d$`, 'm'));
    }
  });
});

describe('GET /health', () => {
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: Replica;

  beforeAll(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
    replica = await Replica.start(bucket, { S3_ENDPOINT: proxy.url, S3_MAX_ATTEMPTS: '1' });
  });
  afterAll(async () => {
    await replica.close();
    await proxy.down();
    await bucket.close();
  });

  const up = { status: 'up' };

  it.each(['/health', '/health/ready'])(
    'says with %s that the replica and its store are well',
    async (path) => {
      const { body, headers } = await replica.http.get(path).expect(200);
      const parts = { replica: up, store: expect.objectContaining(up) };
      expect(body).toEqual({ status: 'ok', info: parts, error: {}, details: parts });
      expect(headers['cache-control']).toBe('no-store');
      await replica.http.head(path).expect(200);
    },
  );

  it('asks the store twice a second at most, however often it is asked itself', async () => {
    const asked = async () =>
      Number(
        /store_call_duration_seconds_count{operation="check".*} (\d+)/.exec(
          (await replica.http.get('/metrics')).text,
        )?.[1] ?? 0,
      );
    const before = await asked();
    const started = Date.now();
    for (let i = 0; i < 20; i += 1) {
      await replica.http.get('/health/ready').expect(200);
      // Never for this one.
      const { body } = await replica.http.get('/health/live').expect(200);
      expect(body.status).toBe('ok');
    }
    expect((await asked()) - before).toBeLessThanOrEqual(1 + Math.ceil((Date.now() - started) / 500));
  });

  it('says that it is not ready, but alive, while the store is down, and is ready again by itself', async () => {
    await proxy.down();
    await until(async () => (await replica.http.get('/health/ready')).status === 503, 5_000);
    for (const path of ['/health', '/health/ready']) {
      const { body, headers } = await replica.http.get(path).expect(503);
      const down = expect.objectContaining({ status: 'down' });
      expect(body).toEqual({
        status: 'error',
        info: { replica: up },
        error: { store: down },
        details: { replica: up, store: down },
      });
      expect(headers['retry-after']).toMatch(/^[1-9]\d*$/);
      expect(headers['cache-control']).toBe('no-store');
      // Anybody may ask.
      expect(JSON.stringify(body)).not.toMatch(/127\.0\.0\.1|ECONN|naru-e2e|secret/);
    }
    await replica.http.get('/health/live').expect(200);
    await proxy.up();
    await until(async () => (await replica.http.get('/health/ready')).status === 200, 5_000);
    await replica.upload(await smallPhoto(16)).expect(201);
  });
});

describe('readiness over a store that takes requests and never answers', () => {
  it('is refused within three seconds, and liveness is given at once', async () => {
    const bucket = await Bucket.open();
    const store = await FaultyStore.start(bucket.endpoint);
    store.fault = () => 'hang';
    const replica = await Replica.start(bucket, { S3_ENDPOINT: store.url });
    try {
      const started = Date.now();
      const ready = replica.http.get('/health/ready').expect(503);
      await replica.http.get('/health/live').expect(200);
      expect(Date.now() - started).toBeLessThan(1_000);
      await ready;
      expect(Date.now() - started).toBeLessThan(3_000);
    } finally {
      await replica.close();
      await store.close();
      await bucket.close();
    }
  });
});
