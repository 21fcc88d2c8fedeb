import { createHash } from 'node:crypto';
import {
  Bucket,
  environmentFor,
  MiB,
  multipart,
  photoOf,
  postHead,
  Replica,
  smallPhoto,
  until,
} from './harness.js';
import { ReplicaProcess } from './replica-process.js';
import { StoreProxy } from './store-proxy.js';

const WEB_KEY = 'web-key-4f1dd0c2';
const BATCH_KEY = 'batch-key-93aa71be';
const WRONG_KEY = 'wrong-key-20c7e55d';

const sha256 = (key: string) => createHash('sha256').update(key).digest('hex');
const API_KEYS = `web:${sha256(WEB_KEY)}, batch:${sha256(BATCH_KEY).toUpperCase()}`;

describe('AUTH=api-key', () => {
  let bucket: Bucket;
  let replica: Replica;
  let photo: Buffer;
  let path: string;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket, { AUTH: 'api-key', API_KEYS });
    photo = await smallPhoto(16);
    path = (await replica.upload(photo).set('X-Api-Key', WEB_KEY).expect(201)).body.images[0].url;
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  it.each([
    ['a bearer token', { Authorization: `Bearer ${WEB_KEY}` }],
    ['a bearer token whose scheme is in small letters', { Authorization: `bearer  ${WEB_KEY}` }],
    ['X-Api-Key', { 'X-Api-Key': WEB_KEY }],
    ['another of several keys', { Authorization: `Bearer ${BATCH_KEY}` }],
    ['X-Api-Key beside what a proxy added', { Authorization: 'Basic dXNlcjpwYXNz', 'X-Api-Key': BATCH_KEY }],
  ])('lets %s upload, list and delete', async (_what, headers) => {
    const { body } = await replica.upload(photo).set(headers).expect(201);
    await replica.http.get('/images').set(headers).expect(200);
    await replica.http.delete(body.images[0].url).set(headers).expect(204);
  });

  it.each([
    ['no key', {}],
    ['a wrong key', { Authorization: `Bearer ${WRONG_KEY}` }],
    ['a wrong key in X-Api-Key', { 'X-Api-Key': WRONG_KEY }],
    ['an empty key', { 'X-Api-Key': '' }],
    ['an empty bearer token', { Authorization: 'Bearer ' }],
    ['another scheme', { Authorization: `Basic ${WEB_KEY}` }],
    ['the key with nothing before it', { Authorization: WEB_KEY }],
    ['the name of a key', { 'X-Api-Key': 'web' }],
    ['the hash of a key', { 'X-Api-Key': sha256(WEB_KEY) }],
    ['a key in other letters', { 'X-Api-Key': WEB_KEY.toUpperCase() }],
    ['the beginning of a key', { 'X-Api-Key': WEB_KEY.slice(0, -1) }],
    ['two keys in one', { 'X-Api-Key': `${WEB_KEY}, ${BATCH_KEY}` }],
  ])('refuses %s, whatever it is for, and changes nothing', async (_what, headers) => {
    const before = await bucket.keys();
    for (const response of [
      await replica.upload(photo).set(headers),
      await replica.http.get('/images').set(headers),
      await replica.http.delete(path).set(headers),
    ]) {
      expect(response.status).toBe(401);
      expect(response.headers).toMatchObject({
        'content-type': 'application/problem+json; charset=utf-8',
        'www-authenticate': expect.stringMatching(/^Bearer /),
        'cache-control': 'no-store',
      });
      expect(response.body).toEqual({
        type: expect.any(String),
        title: expect.any(String),
        status: 401,
        detail: expect.stringContaining('Authorization: Bearer'),
        code: 'UNAUTHENTICATED',
        requestId: response.headers['x-request-id'],
      });
      expect(JSON.stringify(response.body)).not.toMatch(/wrong-key|web-key|batch-key/);
    }
    expect(await bucket.keys()).toEqual(before);
  });

  it('refuses HEAD of the list as it refuses the list', async () => {
    await replica.http.head('/images').expect(401);
  });

  it('refuses before it says whether an image is there', async () => {
    await replica.http.delete(`/images/${'0'.repeat(32)}`).expect(401);
    await replica.http.get('/images?limit=0').expect(401);
  });

  it('leaves open what anybody may read', async () => {
    for (const open of [path, `${path}/info`, '/health', '/health/live', '/health/ready', '/openapi.json']) {
      await replica.http.get(open).expect(200);
    }
    await replica.http.head(path).expect(200);
    await replica.http.get(path).set('X-Api-Key', WRONG_KEY).expect(200);
  });

  it('answers 401, and never "100 Continue", to a client that asks before it sends its body', async () => {
    const connection = await replica.connect();
    connection.write(postHead({ 'Content-Length': 1_000_000, Expect: '100-continue' }));
    expect(await connection.receive(/"requestId":/)).toMatch(/^HTTP\/1\.1 401 /);
    await connection.closed;
    expect(connection.text).not.toContain('100 Continue');
  });

  it('says "100 Continue" to one that has a key', async () => {
    const connection = await replica.connect();
    const body = multipart({ bytes: photo });
    connection.write(
      postHead({ 'X-Api-Key': WEB_KEY, 'Content-Length': body.length, Expect: '100-continue' }),
    );
    await connection.receive(/^HTTP\/1\.1 100 Continue\r\n\r\n/);
    connection.write(body);
    expect(await connection.receive(/"images":/)).toContain('HTTP/1.1 201 ');
    connection.destroy();
  });

  it('lets a client that sends all of its body at once read the 401, and keeps nothing of it', async () => {
    const before = await bucket.keys();
    const connection = await replica.connect();
    const body = multipart({ bytes: await photoOf(4 * MiB) });
    connection.write(postHead({ 'Content-Length': body.length }));
    connection.write(body);
    expect(await connection.receive(/"requestId":/)).toMatch(/^HTTP\/1\.1 401 /);
    // The connection is as good as new: the whole body has been read.
    connection.write(`GET ${path}/info HTTP/1.1\r\nHost: naru.test\r\n\r\n`);
    await connection.receive(/HTTP\/1\.1 200 OK/);
    connection.destroy();
    expect(await bucket.keys()).toEqual(before);
    expect(await bucket.unfinished()).toEqual([]);
  });
});

describe.each([
  ['AUTH=api-key with the hash of nothing among its keys', `oops:${sha256('')}`, 'api-key', 401],
  ['AUTH=none', '', 'none', 200],
])('%s', (_what, keys, AUTH, status) => {
  let bucket: Bucket;
  let replica: Replica;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket, { AUTH, API_KEYS: keys });
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  it.each([{}, { 'X-Api-Key': '' }, { Authorization: 'Bearer ' }, { 'X-Api-Key': WRONG_KEY }])(
    `answers ${status} to %j`,
    async (headers) => {
      await replica.http.get('/images').set(headers).expect(status);
    },
  );
});

describe('the log at its most talkative', () => {
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: ReplicaProcess;

  beforeAll(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
  });
  afterEach(() => replica.stop());
  afterAll(async () => {
    await proxy.down();
    await bucket.close();
  });

  const start = (environment: NodeJS.ProcessEnv) =>
    ReplicaProcess.start({
      ...environmentFor(bucket),
      S3_ENDPOINT: proxy.url,
      S3_MAX_ATTEMPTS: '1',
      AUTH: 'api-key',
      API_KEYS,
      LOG_LEVEL: 'trace',
      ...environment,
    });

  function expectNoSecrets({ stdout, stderr }: ReplicaProcess, ...others: string[]): void {
    for (const secret of [
      WEB_KEY,
      BATCH_KEY,
      WRONG_KEY,
      sha256(WEB_KEY),
      Buffer.from(`user:${WRONG_KEY}`).toString('base64'),
      bucket.credentials.secretAccessKey,
      'AWS4-HMAC',
      ...others,
    ]) {
      expect(stdout + stderr).not.toContain(secret);
    }
  }

  it('shows no key that a client sent, right or wrong, nor a secret of the store', async () => {
    replica = await start({});
    const photo = await smallPhoto(16);
    const post = () => replica.http.post('/images').attach('images', photo, 'a.jpg');
    const { body } = await post().set('Authorization', `Bearer ${WEB_KEY}`).expect(201);
    await post().set('X-Api-Key', WRONG_KEY).expect(401);
    await post().auth('user', WRONG_KEY).expect(401);
    await replica.http.get(body.images[0].url).set('X-Api-Key', BATCH_KEY).expect(200);

    await proxy.down();
    await post().set('X-Api-Key', BATCH_KEY).expect(503);
    await replica.http.get(body.images[0].url).set('Authorization', `Bearer ${WEB_KEY}`).expect(503);
    await until(async () => (await replica.http.get('/health/ready')).status === 503);
    await proxy.up();
    await replica.stop();

    // What went wrong is there all the same.
    expect(replica.stdout).toContain('ECONNREFUSED');
    expect(replica.lines.filter(({ level }) => level === 'error').length).toBeGreaterThanOrEqual(2);
    expectNoSecrets(replica);
  });

  it('shows no secret when the store refuses it', async () => {
    const secret = 'not-the-secret-6b1f';
    replica = await start({ S3_SECRET_ACCESS_KEY: secret });
    const { body } = await replica.http.get('/images').set('X-Api-Key', WEB_KEY).expect(503);
    expect(JSON.stringify(body)).not.toMatch(/Signature|AccessKey|127\.0\.0\.1/);
    await replica.stop();
    expect(replica.stdout).toContain('SignatureDoesNotMatch');
    expectNoSecrets(replica, secret);
  });
});
