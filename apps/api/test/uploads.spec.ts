import { createHash, randomBytes } from 'node:crypto';
import sharp from 'sharp';
import {
  BOUNDARY,
  Bucket,
  MiB,
  multipart,
  photo,
  photoOf,
  postHead,
  Replica,
  smallPhoto,
} from './harness.js';

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

describe('POST /images', () => {
  let bucket: Bucket;
  let replica: Replica;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  async function download(id: string): Promise<Buffer> {
    const { body } = await replica.http.get(`/images/${id}`).responseType('blob').expect(200);
    return body as Buffer;
  }

  it('keeps a photograph byte for byte and says what it is', async () => {
    const bytes = await photo();
    const { body, headers } = await replica.upload({ bytes, name: 'night sky.jpg' }).expect(201);
    const [image] = body.images;
    const { width, height } = await sharp(bytes).metadata();
    expect(image).toEqual({
      id: expect.stringMatching(/^[\da-f]{32}$/),
      url: `/images/${image.id}`,
      contentType: 'image/jpeg',
      bytes: bytes.length,
      width,
      height,
      etag: expect.stringMatching(/^".+"$/),
      originalName: 'night sky.jpg',
      uploadedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    });
    expect(headers['location']).toBe(image.url);
    expect(sha256(await download(image.id))).toBe(sha256(bytes));
    expect((await replica.http.get(`/images/${image.id}/info`).expect(200)).body).toEqual(image);
  });

  it('keeps a large image, sent on in several S3 parts, byte for byte', async () => {
    const bytes = await photoOf(20 * MiB);
    const { body } = await replica.upload(bytes).expect(201);
    expect(body.images[0].bytes).toBe(bytes.length);
    expect(sha256(await download(body.images[0].id))).toBe(sha256(bytes));
    expect(await bucket.unfinished()).toEqual([]);
  });

  it.each([5 * MiB - 1, 5 * MiB, 5 * MiB + 1])(
    'keeps an image of %i bytes, about as large as an S3 part',
    async (size) => {
      const bytes = await photoOf(size);
      const { body } = await replica.upload(bytes).expect(201);
      expect(sha256(await download(body.images[0].id))).toBe(sha256(bytes));
    },
  );

  it('answers several images in the order sent', async () => {
    const files = await Promise.all([32, 48, 16].map(smallPhoto));
    const { body, headers } = await replica.upload(...files).expect(201);
    expect(body.images.map((image: { width: number }) => image.width)).toEqual([32, 48, 16]);
    expect(headers['location']).toBeUndefined();
  });

  it('keeps ten images of one request, large and small mixed', async () => {
    const files = await Promise.all([...Array<number>(8).fill(900_000), 6 * MiB, 1_000_000].map(photoOf));
    const { body } = await replica.upload(...files).expect(201);
    const hashes = await Promise.all(
      body.images.map(async ({ id }: { id: string }) => sha256(await download(id))),
    );
    expect(hashes).toEqual(files.map(sha256));
  });

  it('decides the type by the bytes, whatever the name and the declared type say', async () => {
    const bytes = await sharp(await photo())
      .resize(40)
      .png()
      .toBuffer();
    const { body } = await replica.upload({ bytes, name: 'page.html', type: 'text/html' }).expect(201);
    expect(body.images[0].contentType).toBe('image/png');
    const { headers } = await replica.http.get(body.images[0].url);
    expect(headers['content-type']).toBe('image/png');
    expect(headers['x-content-type-options']).toBe('nosniff');
  });

  it.each(['jpeg', 'png', 'gif', 'webp', 'avif'] as const)('accepts %s', async (format) => {
    const bytes = await sharp(await photo())
      .resize(60, 30, { fit: 'fill' })
      .toFormat(format)
      .toBuffer();
    const { body } = await replica.upload(bytes).expect(201);
    expect(body.images[0]).toMatchObject({ contentType: `image/${format}`, width: 60, height: 30 });
  });

  it('tells width and height as shown when the camera was held upright', async () => {
    const bytes = await sharp(await photo())
      .resize(60, 30, { fit: 'fill' })
      .withMetadata({ orientation: 6 })
      .toBuffer();
    const { body } = await replica.upload(bytes).expect(201);
    expect(body.images[0]).toMatchObject({ width: 30, height: 60 });
  });

  it('tells so even of a large WebP, which says it only behind its pixels', async () => {
    const raw = { width: 1500, height: 1400, channels: 3 } as const;
    const bytes = await sharp(randomBytes(1500 * 1400 * 3), { raw })
      .withMetadata({ orientation: 6 })
      .webp({ lossless: true, effort: 0 })
      .toBuffer();
    expect(bytes.length).toBeGreaterThan(5 * MiB);
    const { body } = await replica.upload(bytes).expect(201);
    const [image] = body.images;
    expect(image).toMatchObject({ contentType: 'image/webp', width: 1400, height: 1500 });
    expect((await replica.http.get(`${image.url}/info`)).body).toEqual(image);
    const { headers } = await replica.http.head(image.url);
    expect(headers).toMatchObject({ etag: image.etag, 'content-type': 'image/webp' });
    expect(sha256(await download(image.id))).toBe(sha256(bytes));
  });

  it('takes a chunked body without a length, in pieces of any size', async () => {
    const connection = await replica.connect();
    const body = multipart({ bytes: await smallPhoto() });
    connection.write(postHead({ 'Transfer-Encoding': 'chunked' }));
    for (let at = 0; at < body.length; at += 97) {
      const piece = body.subarray(at, at + 97);
      connection.write(
        Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]),
      );
    }
    connection.write('0\r\n\r\n');
    expect(await connection.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 /);
    connection.destroy();
  });

  it('takes a large chunked body without a length', async () => {
    const connection = await replica.connect();
    const body = multipart({ bytes: await photoOf(12 * MiB) });
    connection.write(postHead({ 'Transfer-Encoding': 'chunked' }));
    connection.write(
      Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from('\r\n0\r\n\r\n')]),
    );
    expect(await connection.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 /);
    connection.destroy();
  });

  it('says 100 Continue before a body that waits for it', async () => {
    const connection = await replica.connect();
    const body = multipart({ bytes: await smallPhoto() });
    connection.write(postHead({ 'Content-Length': body.length, Expect: '100-continue' }));
    expect(await connection.receive(/\r\n\r\n/)).toBe('HTTP/1.1 100 Continue\r\n\r\n');
    connection.write(body);
    expect(await connection.receive(/"images":/)).toMatch(/HTTP\/1\.1 201 /);
    connection.destroy();
  });

  it('reads a quoted boundary, a preamble, and an epilogue', async () => {
    const connection = await replica.connect();
    const body = Buffer.concat([
      Buffer.from('This is a preamble.\r\n'),
      multipart({ bytes: await smallPhoto() }),
      Buffer.from('And an epilogue.'),
    ]);
    connection.write(
      postHead({
        'Content-Type': `multipart/form-data; boundary="${BOUNDARY}"`,
        'Content-Length': body.length,
      }),
    );
    connection.write(body);
    expect(await connection.receive(/"images":/)).toMatch(/^HTTP\/1\.1 201 /);
    connection.destroy();
  });

  it('names the replica and the request in every answer', async () => {
    const { headers } = await replica
      .upload(await smallPhoto())
      .set('X-Request-Id', 'from-the-client.1')
      .expect(201);
    expect(headers).toMatchObject({ 'x-served-by': 'test-replica', 'x-request-id': 'from-the-client.1' });
    const other = await replica.http.get('/images').set('X-Request-Id', 'not sane').expect(200);
    expect(other.headers['x-request-id']).toMatch(/^[\da-f-]{36}$/);
  });

  it('stores under a key that says nothing of the client', async () => {
    await bucket.empty();
    const { body } = await replica
      .upload({ bytes: await smallPhoto(), name: '../../secret plans.jpg' })
      .expect(201);
    expect(await bucket.keys()).toEqual([`images/${body.images[0].id}`]);
  });
});
