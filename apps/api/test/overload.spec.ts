import {
  Bucket,
  MiB,
  multipart,
  photoOf,
  postHead,
  type RawConnection,
  Replica,
  smallPhoto,
  until,
} from './harness.js';

const LARGE = multipart({ bytes: await photoOf(18 * MiB) });

describe('When uploads ask for more memory than there is', () => {
  let bucket: Bucket;
  let replica: Replica;
  let holder: RawConnection;

  beforeAll(async () => {
    bucket = await Bucket.open();
  });
  beforeEach(async () => {
    // Enough for one large image: the S3 parts in flight, and the one being filled.
    replica = await Replica.start(bucket, {
      MAX_UPLOAD_MEMORY_BYTES: String(15 * MiB),
      UPLOAD_WAIT_MS: '4000',
    });
    holder = await replica.connect();
    holder.write(postHead({ 'Content-Length': LARGE.length }));
    holder.write(LARGE.subarray(0, 6 * MiB));
    await until(async () => (await heldBytes()) === 15 * MiB);
  });
  afterEach(async () => {
    holder.destroy();
    await until(async () => (await heldBytes()) === 0);
    await replica.close();
    await bucket.empty();
  });
  afterAll(() => bucket.close());

  async function heldBytes(): Promise<number> {
    const { text } = await replica.http.get('/metrics');
    return Number(/^naru_upload_memory_bytes (\d+)$/m.exec(text)?.[1]);
  }

  it('one that waited too long is refused with 503 OVERLOADED and Retry-After, and leaves nothing', async () => {
    const { body, headers } = await replica.upload(await smallPhoto()).expect(503);
    expect(body.code).toBe('OVERLOADED');
    expect(headers['retry-after']).toMatch(/^\d+$/);
    expect(await bucket.keys()).toEqual([]);
  });

  it('one that waits is not read meanwhile, and goes on when memory is free', async () => {
    const waiter = await replica.connect();
    waiter.write(postHead({ 'Content-Length': LARGE.length }));
    let sent = false;
    waiter.socket.write(LARGE, () => {
      sent = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    // 18 MiB don't fit the buffers of a connection that nobody reads.
    expect(sent).toBe(false);
    holder.write(LARGE.subarray(6 * MiB));
    expect(await holder.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 /);
    expect(await waiter.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 /);
    waiter.destroy();
  });

  it('one that leaves while it waits makes room for who stands behind it', async () => {
    const first = await replica.connect();
    first.write(postHead({ 'Content-Length': LARGE.length }));
    first.write(LARGE.subarray(0, MiB));
    await new Promise((resolve) => setTimeout(resolve, 100));
    const second = replica.upload(await smallPhoto()).then((response) => response.status);
    await new Promise((resolve) => setTimeout(resolve, 100));
    first.destroy();
    holder.destroy();
    expect(await second).toBe(201);
  });

  it('reads and health go on', async () => {
    await replica.http.get('/health/ready').expect(200);
    await replica.http.get('/images').expect(200);
  });
});

it('many uploads at once are all kept, though memory is for few of them', async () => {
  const bucket = await Bucket.open();
  const replica = await Replica.start(bucket, {
    MAX_UPLOAD_MEMORY_BYTES: String(15 * MiB),
    UPLOAD_WAIT_MS: '30000',
  });
  const image = await photoOf(2 * MiB);
  const answers = await Promise.all(Array.from({ length: 40 }, () => replica.upload(image)));
  expect(answers.map(({ status }) => status)).toEqual(Array<number>(40).fill(201));
  expect(await bucket.keys()).toHaveLength(40);
  await replica.close();
  await bucket.close();
});
