import { Bucket, MiB, photo, photoOf, Replica, smallPhoto } from './harness.js';

// A store as narrow as NAVER Cloud's: no ListObjectsV2, no checksum headers, conditions of puts passed over.
let bucket: Bucket;
let replica: Replica;

beforeAll(async () => {
  bucket = await Bucket.open({ vendor: 'ncp' });
  replica = await Replica.start(bucket, { S3_CONDITIONAL_PUT: 'false' });
});

afterEach(async () => {
  await bucket.empty();
});

afterAll(async () => {
  await replica.close();
  await bucket.close();
});

it('takes images of one S3 part and of several, gives them back, lists and deletes them', async () => {
  const sent = [await photo(), await photoOf(11 * MiB)];
  const { body } = await replica.upload(...sent).expect(201);
  const ids: string[] = body.images.map((image: { id: string }) => image.id);
  for (const [index, id] of ids.entries()) {
    const read = await replica.http.get(`/images/${id}`).buffer(true).expect(200);
    expect(sent[index]!.equals(read.body)).toBe(true);
    expect((await replica.http.get(`/images/${id}/info`).expect(200)).body).toEqual(body.images[index]);
  }
  const first = await replica.http.get('/images?limit=1').expect(200);
  const second = await replica.http.get(`/images?limit=1&cursor=${first.body.nextCursor}`).expect(200);
  const listed = [...first.body.images, ...second.body.images].map(({ id }) => id);
  expect(listed.sort()).toEqual([...ids].sort());
  for (const id of ids) await replica.http.delete(`/images/${id}`).expect(204);
  expect(await bucket.keys()).toEqual([]);
});

it('leaves nothing of a refused upload behind', async () => {
  await replica.upload(await smallPhoto(), await photoOf(11 * MiB), Buffer.from('no image')).expect(415);
  expect(await bucket.keys()).toEqual([]);
  expect(await bucket.unfinished()).toEqual([]);
});

it('answers a repeat under one Idempotency-Key as before, and refuses other bytes', async () => {
  const image = await smallPhoto();
  const upload = (bytes: Buffer) => replica.upload(bytes).set('Idempotency-Key', 'a-key');
  const { body } = await upload(image).expect(201);
  expect((await upload(image).expect(201)).body).toEqual(body);
  await upload(await smallPhoto(65)).expect(422);
  expect(await bucket.keys()).toHaveLength(1);
});
