import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { type Response } from 'supertest';
import { type Image, type ImagePage, type ListedImage } from '../src/images/image.js';
import { Bucket, Replica, smallPhoto } from './harness.js';
import { StoreProxy } from './store-proxy.js';

const COUNT = 25;

function expectProblem(response: Response, status: number, code: string): void {
  expect(response.body).toMatchObject({ status, code, detail: expect.any(String) });
  expect(response.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  expect(response.status).toBe(status);
}

describe('GET /images', () => {
  let bucket: Bucket;
  let replica: Replica;
  let client: S3Client;
  const images: Image[] = [];

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
    const { endpoint, region, credentials } = bucket;
    client = new S3Client({ endpoint, region, credentials, forcePathStyle: true });
  });
  afterAll(async () => {
    client.destroy();
    await replica.close();
    await bucket.close();
  });

  async function page(query = ''): Promise<ImagePage> {
    const { body } = await replica.http.get(`/images${query}`).expect(200);
    return body as ImagePage;
  }

  /** Page after page, as a client would read them. */
  async function* pages(limit: number): AsyncGenerator<ListedImage[]> {
    let cursor: string | null = null;
    do {
      const next: ImagePage = await page(`?limit=${limit}${cursor === null ? '' : `&cursor=${cursor}`}`);
      yield next.images;
      cursor = next.nextCursor;
    } while (cursor !== null);
  }

  const putForeign = (...keys: string[]) =>
    Promise.all(
      keys.map((Key) => client.send(new PutObjectCommand({ Bucket: bucket.name, Key, Body: 'no image' }))),
    );

  it('is empty, with nothing to follow, while there are no images', async () => {
    expect(await page()).toEqual({ images: [], nextCursor: null });
  });

  describe('of 25 images', () => {
    beforeAll(async () => {
      const photo = await smallPhoto();
      for (const count of [10, 10, COUNT - 20]) {
        const { body } = await replica.upload(...Array<Buffer>(count).fill(photo)).expect(201);
        images.push(...(body.images as Image[]));
      }
    });

    it.each([
      [1, Array<number>(25).fill(1)],
      [7, [7, 7, 7, 4]],
      [25, [25]],
      [100, [25]],
    ])('shows every one exactly once in pages of %i', async (limit, sizes) => {
      const seen: ListedImage[][] = [];
      for await (const some of pages(limit)) seen.push(some);
      expect(seen.map((some) => some.length)).toEqual(sizes);
      const ids = seen.flat().map(({ id }) => id);
      expect(ids.toSorted()).toEqual(images.map(({ id }) => id).toSorted());
    });

    it('tells what a listing knows, and the same as the image itself does', async () => {
      const listed = await page();
      for (const image of listed.images) {
        const { id, url, bytes, etag } = images.find((one) => one.id === image.id)!;
        expect(image).toEqual({
          id,
          url,
          bytes,
          etag,
          uploadedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/),
        });
        expect(Math.abs(Date.parse(image.uploadedAt) - Date.now())).toBeLessThan(60_000);
      }
    });

    it('is no larger when HEAD asks, and shows nothing', async () => {
      const { text } = await replica.http.head('/images').expect(200);
      expect(text).toBeUndefined();
    });

    it('goes on behind a cursor whose image has been deleted meanwhile', async () => {
      const first = await page('?limit=10');
      const last = first.images.at(-1)!;
      await replica.http.delete(last.url).expect(204);
      const rest = await page(`?limit=100&cursor=${first.nextCursor}`);
      const ids = [...first.images, ...rest.images].map(({ id }) => id);
      expect(ids.toSorted()).toEqual(images.map(({ id }) => id).toSorted());
      images.splice(
        images.findIndex(({ id }) => id === last.id),
        1,
      );
    });

    it('never shows what others keep in the same bucket, on whatever page it would fall', async () => {
      await putForeign(
        'a-first',
        'image',
        'images.txt',
        'imagesque/0',
        `backups/images/${'0'.repeat(32)}`,
        'z-last',
        // Even in our folder: a folder's marker, thumbnails, a note.
        'images/',
        'images/0-README.txt',
        'images/5',
        'images/~',
      );
      // On MinIO a key that others have as a folder hides those others.
      if (!process.env['E2E_S3_ENDPOINT']) await putForeign('images', `images/${images[3]!.id}/thumbnail`);
      for (const limit of [1, 7, 24, 25, 100]) {
        const ids: string[] = [];
        for await (const some of pages(limit)) ids.push(...some.map(({ id }) => id));
        expect(ids.toSorted()).toEqual(images.map(({ id }) => id).toSorted());
      }
    });
  });

  it.each([
    ['limit=0', 'limit'],
    ['limit=101', 'limit'],
    ['limit=-1', 'limit'],
    ['limit=abc', 'limit'],
    ['limit=1.5', 'limit'],
    ['limit=', 'limit'],
    ['limit=1e1', 'limit'],
    ['limit=%2010', 'limit'],
    ['limit=0x10', 'limit'],
    ['limit=10&limit=20', 'limit'],
    ['limit[]=10', 'limit'],
    ['cursor=', 'cursor'],
    ['cursor=abc', 'cursor'],
    ['cursor=..%2F..%2Fsecrets', 'cursor'],
    [`cursor=${'0'.repeat(33)}`, 'cursor'],
    [`cursor=${'0'.repeat(32)}&cursor=${'1'.repeat(32)}`, 'cursor'],
    ['page=2', 'page'],
  ])('answers 400 to ?%s, and names what is wrong', async (query, name) => {
    const response = await replica.http.get(`/images?${query}`);
    expectProblem(response, 400, 'INVALID_ARGUMENT');
    expect(response.body.detail).toContain(name);
    expect(response.body.detail).not.toMatch(/received|undefined|expected string/);
  });

  it('names everything that is wrong at once', async () => {
    const { body } = await replica.http.get('/images?limit=0&cursor=abc').expect(400);
    expect(body.detail).toMatch(/limit.*cursor/);
  });
});

describe('GET /images without a limit', () => {
  let bucket: Bucket;
  let replica: Replica;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
    const photo = await smallPhoto(8);
    for (const count of [10, 10, 10, 10, 10, 1]) {
      await replica.upload(...Array<Buffer>(count).fill(photo)).expect(201);
    }
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  it('shows 50 images and tells where to go on', async () => {
    const first = (await replica.http.get('/images').expect(200)).body as ImagePage;
    expect(first.images).toHaveLength(50);
    const { body } = await replica.http.get(`/images?cursor=${first.nextCursor}`).expect(200);
    expect(body).toMatchObject({ images: [{ id: expect.any(String) }], nextCursor: null });
  });
});

describe('DELETE /images/{id}', () => {
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: Replica;
  let image: Image;

  beforeAll(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
    replica = await Replica.start(bucket, { S3_ENDPOINT: proxy.url });
  });
  beforeEach(async () => {
    [image] = (await replica.upload(await smallPhoto()).expect(201)).body.images;
  });
  afterAll(async () => {
    await replica.close();
    await proxy.down();
    await bucket.close();
  });

  it('answers 204 without a body, and 404 when asked again', async () => {
    const { text, headers } = await replica.http.delete(image.url).expect(204);
    expect(text).toBe('');
    expect(headers['content-type']).toBeUndefined();
    expectProblem(await replica.http.delete(image.url), 404, 'NOT_FOUND');
  });

  it('takes the image from the bucket, the list, and every address it had', async () => {
    const [other] = (await replica.upload(await smallPhoto(32)).expect(201)).body.images;
    await replica.http.delete(image.url).expect(204);
    for (const url of [image.url, `${image.url}/info`]) {
      expectProblem(await replica.http.get(url), 404, 'NOT_FOUND');
    }
    await replica.http.head(image.url).expect(404);
    const { body } = await replica.http.get('/images?limit=100').expect(200);
    const ids = (body as ImagePage).images.map(({ id }) => id);
    expect(ids).toContain(other.id);
    expect(ids).not.toContain(image.id);
    expect(await bucket.keys()).not.toContain(`images/${image.id}`);
  });

  it.each(['0'.repeat(32), 'abc', '..%2fsecrets', `${'0'.repeat(32)}%2f..`, '%20', '*'])(
    'answers 404 for %s, and deletes nothing',
    async (id) => {
      const before = await bucket.keys();
      expectProblem(await replica.http.delete(`/images/${id}`), 404, 'NOT_FOUND');
      expect(await bucket.keys()).toEqual(before);
    },
  );

  it('does not delete all when no id is given', async () => {
    for (const path of ['/images', '/images/']) {
      expectProblem(await replica.http.delete(path), 405, 'METHOD_NOT_ALLOWED');
    }
    await replica.http.get(image.url).expect(200);
  });

  it('answers 503 when the store is down, and the image stays', async () => {
    await proxy.down();
    const response = await replica.http.delete(image.url);
    expectProblem(response, 503, 'STORE_UNAVAILABLE');
    expect(response.headers['retry-after']).toMatch(/^\d+$/);
    expectProblem(await replica.http.get('/images'), 503, 'STORE_UNAVAILABLE');
    await proxy.up();
    await replica.http.get(image.url).expect(200);
  });
});
