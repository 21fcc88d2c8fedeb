import { createHash, randomUUID } from 'node:crypto';
import { type IncomingMessage } from 'node:http';
import { HeadObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { type Response } from 'supertest';
import { type Fault, FaultyStore } from './faulty-store.js';
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

const isPut = ({ method, headers }: IncomingMessage) => method === 'PUT' && !headers['x-amz-copy-source'];
const isDelete = ({ method }: IncomingMessage) => method === 'DELETE';

describe('A request with an Idempotency-Key', () => {
  let bucket: Bucket;
  let replica: Replica;
  let other: Replica;
  let good: Buffer;
  let another: Buffer;
  let client: S3Client;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
    other = await Replica.start(bucket);
    good = await smallPhoto(64);
    another = await smallPhoto(65);
    client = new S3Client({
      endpoint: bucket.endpoint,
      region: bucket.region,
      credentials: bucket.credentials,
      forcePathStyle: true,
    });
  });
  afterEach(() => bucket.empty());
  afterAll(async () => {
    client.destroy();
    await Promise.all([replica.close(), other.close()]);
    await bucket.close();
  });

  const upload = (key: string, ...files: Parameters<Replica['upload']>) =>
    replica.upload(...files).set('Idempotency-Key', key);
  const repeat = (key: string, ...files: Parameters<Replica['upload']>) =>
    other.upload(...files).set('Idempotency-Key', key);
  const read = async (id: string): Promise<Buffer> =>
    (await replica.http.get(`/images/${id}`).expect(200).buffer(true)).body as Buffer;
  const headOf = (id: string) =>
    client.send(new HeadObjectCommand({ Bucket: bucket.name, Key: `images/${id}` }));

  it('is answered as before when another replica gets it again, and stored once', async () => {
    const key = randomUUID();
    const first = await upload(key, { bytes: good, name: 'first.jpg' }, another).expect(201);
    const second = await repeat(key, { bytes: good, name: 'second.jpg' }, another).expect(201);
    expect(second.body).toEqual(first.body);
    expect(second.body.images[0].originalName).toBe('first.jpg');
    expect(await bucket.keys()).toHaveLength(2);
    for (const [index, bytes] of [good, another].entries()) {
      const { id, etag, uploadedAt } = second.body.images[index];
      expect(await read(id)).toEqual(bytes);
      const { body, headers } = await replica.http.get(`/images/${id}/info`).expect(200);
      expect(body).toEqual(first.body.images[index]);
      expect(body).toMatchObject({ etag, uploadedAt });
      expect(headers).not.toHaveProperty('x-amz-meta-owner');
    }
    const third = await upload(key, good, another).expect(201);
    expect(third.body).toEqual(first.body);
  });

  it('carries its Location when repeated, too', async () => {
    const key = randomUUID();
    const { headers } = await upload(key, good).expect(201);
    expect((await repeat(key, good).expect(201)).headers['location']).toBe(headers['location']);
  });

  it('is refused with 422 when an image differs, be it in length or in one byte, and what was stored stays', async () => {
    const key = randomUUID();
    const { body } = await upload(key, good).expect(201);
    const flipped = Buffer.concat([good, Buffer.from('a')]);
    const { body: longer } = await repeat(key, flipped).expect(422);
    expect(longer.code).toBe('IDEMPOTENCY_KEY_REUSED');
    await upload(key, another).expect(422);
    const one = randomUUID();
    await upload(one, flipped).expect(201);
    flipped[flipped.length - 1]! ^= 1;
    await upload(one, flipped).expect(422);
    expect(await read(body.images[0].id)).toEqual(good);
    expect(await bucket.keys()).toHaveLength(2);
  });

  it('counts each place by itself: more images than before are added, and taken back if one differs', async () => {
    const key = randomUUID();
    const { body: one } = await upload(key, good).expect(201);
    await repeat(key, another, good, good).expect(422);
    expect(await bucket.keys()).toHaveLength(1);
    const { body: two } = await upload(key, good, another).expect(201);
    expect(two.images[0]).toEqual(one.images[0]);
    await repeat(key, good, good).expect(422);
    expect(await bucket.keys()).toHaveLength(2);
    expect((await repeat(key, good).expect(201)).body).toEqual(one);
  });

  it('is new again once its image is deleted', async () => {
    const key = randomUUID();
    const { body } = await upload(key, good).expect(201);
    await replica.http.delete(`/images/${body.images[0].id}`).expect(204);
    const { body: again } = await repeat(key, another).expect(201);
    expect(again.images[0].id).toBe(body.images[0].id);
    expect(await read(again.images[0].id)).toEqual(another);
  });

  it('has one winner of twenty at once with the same image, and all are answered alike', async () => {
    const key = randomUUID();
    const image = good;
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => (index % 2 ? upload : repeat)(key, image)),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 201));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    expect(await bucket.keys()).toHaveLength(1);
    expect(await read(answers[0]!.body.images[0].id)).toEqual(image);
  });

  it('has one winner of twenty at once with other images each, and the others are refused', async () => {
    const key = randomUUID();
    const images = Array.from({ length: 20 }, (_, index) => Buffer.concat([good, Buffer.from([index])]));
    const answers = await Promise.all(
      // Two each, so that no one wins one place and another one the other.
      images.map((image, index) => (index % 2 ? upload : repeat)(key, image, image)),
    );
    const won = answers.flatMap(({ status }, index) => (status === 201 ? [index] : []));
    expect(won).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 422)).toHaveLength(19);
    expect(await bucket.keys()).toHaveLength(2);
    for (const { id } of answers[won[0]!]!.body.images) expect(await read(id)).toEqual(images[won[0]!]);
  });

  it('may be as large as S3 parts need: a repeat is compared with what is there, and leaves no upload', async () => {
    const key = randomUUID();
    const image = await photoOf(6 * MiB);
    const first = await upload(key, image).expect(201);
    const [second, third] = await Promise.all([repeat(key, image), upload(key, image)]);
    expect([second.status, third.status]).toEqual([201, 201]);
    expect([second.body, third.body]).toEqual([first.body, first.body]);
    image[image.length - 1]! ^= 1;
    const { body } = await repeat(key, image).expect(422);
    expect(body.code).toBe('IDEMPOTENCY_KEY_REUSED');
    expect(await bucket.keys()).toHaveLength(1);
    expect(await bucket.unfinished()).toEqual([]);
    image[image.length - 1]! ^= 1;
    expect(
      createHash('md5')
        .update(await read(first.body.images[0].id))
        .digest('hex'),
    ).toBe(createHash('md5').update(image).digest('hex'));
  });

  it('needs a key of 1 to 255 visible ASCII characters, sent once, before its body is read', async () => {
    for (const key of ['', 'a b', 'x'.repeat(256), 'é', 'a, b']) {
      const connection = await replica.connect();
      const head = postHead({ 'Content-Length': 1_000, 'Idempotency-Key': key });
      connection.write(Buffer.from(head, 'utf8'));
      const answer = await connection.receive(/"requestId"/);
      expect(answer).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer).toMatch(/"code":"INVALID_ARGUMENT"/);
      expect(answer).toMatch(/1 to 255 visible ASCII/);
      connection.destroy();
    }
    await upload('x'.repeat(255), good).expect(201);
    await upload('!', good).expect(201);
  });

  it('is told apart by the API key, and by nothing that a client can choose', async () => {
    const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
    const API_KEYS = ['a', 'b'].map((name) => `${name}:${sha256(`key-${name}`)}`).join();
    const guarded = await Replica.start(bucket, { AUTH: 'api-key', API_KEYS });
    const post = (caller: string, key: string) =>
      guarded.upload(good).set('X-Api-Key', `key-${caller}`).set('Idempotency-Key', key).expect(201);
    const ids = async (answers: Promise<Response>[]) =>
      (await Promise.all(answers)).map(({ body }) => body.images[0].id as string);
    const [a, b, nobody] = await ids([
      post('a', '1'),
      post('b', '1'),
      upload('1', good).then((answer) => answer),
    ]);
    expect(new Set([a, b, nobody]).size).toBe(3);
    expect(await ids([post('a', '1')])).toEqual([a]);
    await guarded.close();
  });

  describe('over a store that is in trouble', () => {
    let store: FaultyStore;
    let first: Replica;

    beforeAll(async () => {
      store = await FaultyStore.start(bucket.endpoint);
      first = await Replica.start(bucket, { S3_ENDPOINT: store.url, S3_REQUEST_TIMEOUT_MS: '10000' });
    });
    afterEach(() => {
      store.fault = () => 'pass';
    });
    afterAll(async () => {
      await first.close();
      await store.close();
    });

    /** Keeps back the first such request until it is released; `come` resolves when it is there. */
    const hold = (is: (request: IncomingMessage) => boolean) => {
      let release = () => {};
      const come = new Promise<void>((resolve) => {
        store.fault = (request) => {
          if (!is(request)) return 'pass';
          store.fault = () => 'pass';
          resolve();
          return new Promise<Fault>((pass) => {
            release = () => {
              pass('pass');
            };
          });
        };
      });
      return {
        come,
        release: () => {
          release();
        },
      };
    };
    const firstUpload = (key: string, ...files: Parameters<Replica['upload']>) =>
      first.upload(...files).set('Idempotency-Key', key);

    it('takes its own put for its own when the answer to it was lost', async () => {
      let puts = 0;
      store.fault = (request) => (isPut(request) && (puts += 1) === 1 ? 'cut-answer' : 'pass');
      const { body } = await firstUpload(randomUUID(), good).expect(201);
      expect(puts).toBe(2);
      expect(await bucket.keys()).toEqual([`images/${body.images[0].id}`]);
      // It still has its owner: nobody else claimed it.
      expect((await headOf(body.images[0].id)).Metadata).toHaveProperty('owner');
    });

    it('takes its own multipart upload for its own when the answer to its completion was lost', async () => {
      let completions = 0;
      store.fault = ({ method, url = '' }) =>
        method === 'POST' && url.includes('uploadId=') && (completions += 1) === 1 ? 'cut-answer' : 'pass';
      const { body } = await firstUpload(randomUUID(), await photoOf(6 * MiB)).expect(201);
      expect(completions).toBeGreaterThan(1);
      expect(await bucket.keys()).toEqual([`images/${body.images[0].id}`]);
    });

    it('leaves what a repeat was told of, when the first one wakes up to find its client gone', async () => {
      const key = randomUUID();
      const hang = hangAnswers((request) => isPut(request));
      const body = multipart({ bytes: good });
      const connection = await first.connect();
      connection.write(postHead({ 'Content-Length': body.length, 'Idempotency-Key': key }));
      connection.write(body);
      // It is stored, but the first replica doesn't know.
      await until(async () => (await bucket.keys()).length === 1);
      const { body: told } = await repeat(key, good).expect(201);
      await leave(connection);
      hang.release();
      await until(async () => /^naru_uploads_in_flight 0$/m.test((await first.http.get('/metrics')).text));
      await until(() => store.seen.some((line) => line.startsWith('HEAD')));
      expect(store.seen.filter((line) => line.startsWith('DELETE'))).toEqual([]);
      expect(await read(told.images[0].id)).toEqual(good);
    });

    it('takes back what it stored when its client is gone and nobody asked again', async () => {
      const hang = hangAnswers((request) => isPut(request));
      const body = multipart({ bytes: good });
      const connection = await first.connect();
      connection.write(postHead({ 'Content-Length': body.length, 'Idempotency-Key': randomUUID() }));
      connection.write(body);
      await until(async () => (await bucket.keys()).length === 1);
      await leave(connection);
      hang.release();
      await until(async () => (await bucket.keys()).length === 0);
    });

    it('leaves what a repeat was told of, when the first one is refused afterwards', async () => {
      const key = randomUUID();
      const body = multipart({ bytes: good }, { bytes: good.subarray(0, good.length / 2) });
      const connection = await first.connect();
      connection.write(postHead({ 'Content-Length': body.length, 'Idempotency-Key': key }));
      connection.write(body.subarray(0, good.length + 300));
      await until(async () => (await bucket.keys()).length === 1);
      const { body: told } = await repeat(key, good).expect(201);
      connection.write(body.subarray(good.length + 300));
      expect(await connection.receive(/"requestId"/)).toMatch(/^HTTP\/1\.1 422 [\s\S]*CORRUPT_IMAGE/);
      expect(await read(told.images[0].id)).toEqual(good);
      connection.destroy();
    });

    it('takes nothing back that it found there, when it is refused itself', async () => {
      const key = randomUUID();
      const { body } = await repeat(key, good).expect(201);
      await firstUpload(key, good, good.subarray(0, good.length / 2)).expect(422);
      expect(await read(body.images[0].id)).toEqual(good);
    });

    it('puts once more what its owner took back between the claim and the second look', async () => {
      const key = randomUUID();
      // The first one looks, sees that it is its own, and is late with its delete.
      const held = hold(isDelete);
      const refused = firstUpload(key, good, good.subarray(0, good.length / 2)).then((answer) => answer);
      await held.come;
      const claims: string[] = [];
      const told = repeat(key, good).then((answer) => answer);
      await until(async () => {
        const [id] = await bucket.keys();
        const owner = id && (await headOf(id.slice('images/'.length))).Metadata?.['owner'];
        if (!owner) claims.push('kept');
        return claims.length > 0;
      });
      held.release();
      expect((await refused).status).toBe(422);
      const { status, body } = await told;
      expect(status).toBe(201);
      expect(await read(body.images[0].id)).toEqual(good);
    });

    it('puts back what its delete took when the second look of a repeat was over', async () => {
      const key = randomUUID();
      const held = hold(isDelete);
      const refused = firstUpload(key, good, good.subarray(0, good.length / 2)).then((answer) => answer);
      await held.come;
      const { body } = await repeat(key, good).expect(201);
      held.release();
      expect((await refused).status).toBe(422);
      expect(await read(body.images[0].id)).toEqual(good);
    });

    it('claims what it found alone, and not what was put there since', async () => {
      const key = randomUUID();
      const { body } = await upload(key, good).expect(201);
      const held = hold((request) => isPut(request) && !request.headers['if-none-match']);
      const late = firstUpload(key, good).then((answer) => answer);
      await held.come;
      await other.http.delete(`/images/${body.images[0].id}`).expect(204);
      await repeat(key, another).expect(201);
      held.release();
      expect((await late).status).toBe(422);
      expect(await read(body.images[0].id)).toEqual(another);
    });

    it('never deletes an object in S3 parts that a repeat may have been told of, once its own client is gone', async () => {
      const key = randomUUID();
      const image = await photoOf(6 * MiB);
      const hang = hangAnswers(({ method, url = '' }) => method === 'POST' && url.includes('uploadId='));
      const body = multipart({ bytes: image });
      const connection = await first.connect();
      connection.write(postHead({ 'Content-Length': body.length, 'Idempotency-Key': key }));
      connection.write(body);
      await until(async () => (await bucket.keys()).length === 1);
      const { body: told } = await repeat(key, image).expect(201);
      await leave(connection);
      hang.release();
      await until(async () => /^naru_uploads_in_flight 0$/m.test((await first.http.get('/metrics')).text));
      await until(() => store.seen.some((line) => line.startsWith('HEAD')));
      expect(store.seen.filter((line) => line.startsWith('DELETE') && !line.includes('uploadId'))).toEqual(
        [],
      );
      expect((await read(told.images[0].id)).equals(image)).toBe(true);
      expect(await bucket.unfinished()).toEqual([]);
    });

    it('puts no other image before the first one has its place, or each of two requests could win one', async () => {
      let go = () => {};
      const held = new Promise<Fault>((resolve) => {
        go = () => resolve('pass');
      });
      store.seen.length = 0;
      const puts = () => store.seen.filter((line) => line.startsWith('PUT'));
      store.fault = (request) => (isPut(request) && puts().length === 1 ? held : 'pass');
      const answered = firstUpload(randomUUID(), good, another).then((answer) => answer);
      await until(async () => /^naru_uploads_in_flight 2$/m.test((await first.http.get('/metrics')).text));
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(puts()).toHaveLength(1);
      go();
      expect((await answered).status).toBe(201);
      expect(puts()).toHaveLength(2);
    });

    it('goes on without conditional puts when the store says that it has none', async () => {
      store.fault = ({ headers }) => (headers['if-none-match'] === undefined ? 'pass' : 501);
      const plain = await Replica.start(bucket, { S3_ENDPOINT: store.url });
      const post = (key: string, ...files: Buffer[]) => plain.upload(...files).set('Idempotency-Key', key);
      for (const image of [good, await photoOf(6 * MiB)]) {
        const key = randomUUID();
        const one = await post(key, image).expect(201);
        const two = await post(key, image).expect(201);
        expect(two.body).toEqual(one.body);
        const changed = Buffer.from(image);
        changed[changed.length - 1]! ^= 1;
        await post(key, Buffer.concat([changed, Buffer.from('a')])).expect(422);
        expect((await read(one.body.images[0].id)).equals(image)).toBe(true);
      }
      expect(await bucket.keys()).toHaveLength(2);
      expect(await bucket.unfinished()).toEqual([]);
      await plain.close();
    });

    it('asks for no conditional put where S3_CONDITIONAL_PUT is false', async () => {
      let conditions = 0;
      store.fault = ({ headers }) => {
        if (headers['if-none-match'] !== undefined) conditions += 1;
        return 'pass';
      };
      const plain = await Replica.start(bucket, { S3_ENDPOINT: store.url, S3_CONDITIONAL_PUT: 'false' });
      const key = randomUUID();
      const one = await plain.upload(good).set('Idempotency-Key', key).expect(201);
      const two = await plain.upload(good).set('Idempotency-Key', key).expect(201);
      expect(two.body).toEqual(one.body);
      await plain.upload(another).set('Idempotency-Key', key).expect(422);
      expect(conditions).toBe(0);
      await plain.close();
    });

    /** Resolves when the replica knows: whoever asks is in flight as well. */
    async function leave(connection: RawConnection): Promise<void> {
      connection.destroy();
      await until(async () => {
        const { text } = await first.http.get('/metrics');
        return /^naru_http_requests_in_flight 1$/m.test(text);
      });
    }

    /** Stores what it is given, and keeps the answer to itself until it is released. */
    function hangAnswers(matches: (request: IncomingMessage) => boolean): { release: () => void } {
      store.seen.length = 0;
      let release = () => {};
      const released = new Promise<void>((resolve) => {
        release = resolve;
      });
      store.fault = (request) => (matches(request) ? { answerAfter: released } : 'pass');
      return { release };
    }
  });
});
