import { type IncomingMessage } from 'node:http';
import { Bucket, MiB, multipart, photo, photoOf, postHead, Replica, smallPhoto, until } from './harness.js';
import { type Fault, FaultyStore } from './faulty-store.js';

const isPut = ({ method }: IncomingMessage) => method === 'PUT';
const isPart = ({ method, url = '' }: IncomingMessage, number: number) =>
  method === 'PUT' && url.includes(`partNumber=${number}`);
const isComplete = ({ method, url = '' }: IncomingMessage) => method === 'POST' && url.includes('uploadId=');
const isCreate = ({ method, url = '' }: IncomingMessage) => method === 'POST' && url.includes('uploads');

describe('When the object store is in trouble', () => {
  let bucket: Bucket;
  let store: FaultyStore;
  let replica: Replica;
  let good: Buffer;

  beforeAll(async () => {
    bucket = await Bucket.open();
    store = await FaultyStore.start(bucket.endpoint);
    replica = await Replica.start(bucket, {
      S3_ENDPOINT: store.url,
      S3_REQUEST_TIMEOUT_MS: '1000',
      S3_MAX_ATTEMPTS: '2',
    });
    good = await smallPhoto();
  });
  afterEach(async () => {
    // Whatever it was: nothing half-written stays, and it works again without a restart.
    store.fault = () => 'pass';
    await until(async () => (await bucket.keys()).length === 0 && (await bucket.unfinished()).length === 0);
    await replica.upload(good).expect(201);
    await bucket.empty();
  });
  afterAll(async () => {
    await replica.close();
    await store.close();
    await bucket.close();
  });

  async function unavailable(...images: Buffer[]): Promise<void> {
    const { body, headers } = await replica.upload(...images).expect(503);
    expect(body.code).toBe('STORE_UNAVAILABLE');
    expect(headers['retry-after']).toMatch(/^\d+$/);
  }

  it.each<Fault>([500, 503, 403, 'hang', 'cut'])(
    'a put that meets %p is answered with 503',
    async (fault) => {
      store.fault = (request) => (isPut(request) ? fault : 'pass');
      await unavailable(await photo());
    },
  );

  it('a store that is not there is answered with 503 at once', async () => {
    const lonely = await Replica.start(bucket, { S3_ENDPOINT: 'http://127.0.0.1:1' });
    const { body } = await lonely.upload(good).expect(503);
    expect(body.code).toBe('STORE_UNAVAILABLE');
    await lonely.http.get(`/images/${'0'.repeat(32)}`).expect(503);
    await lonely.http.get('/images').expect(503);
    await lonely.http.get('/health/ready').expect(503).expect('Retry-After', /\d/);
    await lonely.http.get('/health/live').expect(200);
    await lonely.close();
  });

  it('takes back what a store kept without saying so', async () => {
    store.fault = (request) => (isPut(request) ? 'cut-answer' : 'pass');
    await unavailable(good);
    expect(await bucket.keys()).toEqual([]);
  });

  it('takes it back even if the store has to recover first', async () => {
    store.fault = ({ method }) => (method === 'PUT' ? 'cut-answer' : 503);
    await unavailable(good);
    expect(await bucket.keys()).toHaveLength(1);
    store.fault = () => 'pass';
    await until(async () => (await bucket.keys()).length === 0);
  });

  it('tries again a bounded number of times, and succeeds when the trouble was short', async () => {
    let puts = 0;
    store.fault = (request) => (isPut(request) && (puts += 1) === 1 ? 503 : 'pass');
    const { body } = await replica.upload(await photo()).expect(201);
    expect(puts).toBe(2);
    expect(await bucket.keys()).toEqual([`images/${body.images[0].id}`]);
    await bucket.empty();
    puts = 0;
    store.fault = (request) => (isPut(request) && (puts += 1) > 0 ? 503 : 'pass');
    await unavailable(good);
    expect(puts).toBe(2);
  });

  it.each<[string, (request: IncomingMessage) => boolean]>([
    ['creating it', isCreate],
    ['its first S3 part', (request) => isPart(request, 1)],
    ['its second S3 part', (request) => isPart(request, 2)],
    ['completing it', isComplete],
  ])('a multipart upload that fails at %s leaves no S3 part', async (_name, matches) => {
    for (const fault of [500, 'cut', 'cut-answer'] as const) {
      store.fault = (request) => (matches(request) ? fault : 'pass');
      await unavailable(await photoOf(12 * MiB));
      store.fault = () => 'pass';
      expect(await bucket.unfinished()).toEqual([]);
      expect(await bucket.keys()).toEqual([]);
    }
  });

  it('one image that can not be put takes the others of its request back', async () => {
    let puts = 0;
    store.fault = (request) => (isPut(request) && (puts += 1) > 1 ? 500 : 'pass');
    await unavailable(good, good);
    expect(await bucket.keys()).toEqual([]);
  });

  it('a client that leaves while the store is slow leaves nothing there', async () => {
    let release = () => {};
    const reached = new Promise<void>((resolve) => {
      store.fault = (request) => {
        if (!isPut(request)) return 'pass';
        resolve();
        // What the client doesn't wait for is still passed on.
        request.pause();
        release = () => request.resume();
        return 'pass';
      };
    });
    const body = multipart({ bytes: await photo() });
    const connection = await replica.connect();
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body);
    await reached;
    connection.destroy();
    release();
    await until(async () => {
      const { text } = await replica.http.get('/metrics');
      return /^naru_uploads_in_flight 0$/m.test(text);
    });
    expect(await bucket.keys()).toEqual([]);
  });

  it('a read that breaks off before its first byte is a 503 that no cache keeps', async () => {
    const { body } = await replica.upload(good).expect(201);
    store.fault = ({ method }) => (method === 'GET' ? 'cut-head' : 'pass');
    const answer = await replica.http.get(`/images/${body.images[0].id}`).expect(503);
    expect(answer.body.code).toBe('STORE_UNAVAILABLE');
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(answer.headers['content-type']).toMatch(/problem\+json/);
    expect(answer.headers['etag']).toBeUndefined();
    await bucket.empty();
  });

  it('an answer without an ETag, which no store gives, is not taken for success', async () => {
    store.fault = (request) => (isPut(request) ? 200 : 'pass');
    await unavailable(good);
  });

  it('a client that leaves while S3 parts hang frees its memory long before they time out', async () => {
    store.fault = (request) => (isPut(request) ? 'hang' : 'pass');
    const patient = await Replica.start(bucket, { S3_ENDPOINT: store.url, S3_REQUEST_TIMEOUT_MS: '600000' });
    // Two S3 parts take all of it: of a client whose socket is not read, nobody would hear that it left.
    const body = multipart({ bytes: await photoOf(7 * MiB) });
    const connection = await patient.connect();
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body);
    const held = async () =>
      /^naru_upload_memory_bytes (\d+)$/m.exec((await patient.http.get('/metrics')).text)?.[1];
    await until(async () => (await bucket.unfinished()).length === 1 && (await held()) !== '0');
    connection.destroy();
    await until(async () => (await held()) === '0');
    expect(await bucket.unfinished()).toEqual([]);
    await patient.close();
  });

  it('a read that breaks off in the middle is not passed off as whole', async () => {
    const { body } = await replica.upload(await photoOf(8 * MiB)).expect(201);
    store.fault = ({ method }) => (method === 'GET' ? 'cut-body' : 'pass');
    const connection = await replica.connect();
    connection.write(`GET /images/${body.images[0].id} HTTP/1.1\r\nHost: naru.test\r\n\r\n`);
    connection.socket.pause();
    setTimeout(() => connection.socket.resume(), 100);
    await connection.closed;
    expect(connection.text).toMatch(/^HTTP\/1\.1 200 [\s\S]*Content-Length: 8388608\r\n/);
    expect(connection.text.length).toBeLessThan(8 * MiB);
    await bucket.empty();
  });
});
