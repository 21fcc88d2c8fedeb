import sharp from 'sharp';
import {
  BOUNDARY,
  Bucket,
  MiB,
  multipart,
  photo,
  photoOf,
  postHead,
  type RawConnection,
  Replica,
  smallPhoto,
  until,
} from './harness.js';

const MAX_IMAGE_BYTES = 20 * MiB;
const NAMELESS =
  'Content-Disposition: form-data; name="images"; filename=""\r\nContent-Type: application/octet-stream';

describe('POST /images refuses', () => {
  let bucket: Bucket;
  let replica: Replica;
  let good: Buffer;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
    good = await smallPhoto();
  });
  afterEach(async () => {
    // Every refusal leaves the bucket as it was, and the process ready for the next one.
    expect(await bucket.keys()).toEqual([]);
    expect(await bucket.unfinished()).toEqual([]);
    expect(await metric('naru_upload_memory_bytes')).toBe(0);
    expect(await metric('naru_uploads_in_flight')).toBe(0);
    await replica.upload(good).expect(201);
    await bucket.empty();
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  async function metric(name: string): Promise<number> {
    const { text } = await replica.http.get('/metrics');
    return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
  }

  /** Sends a request as raw bytes, reads the whole answer, and checks that it is the problem. */
  async function refusal(
    status: number,
    code: string,
    ...pieces: (Buffer | string)[]
  ): Promise<RawConnection> {
    const connection = await replica.connect();
    for (const piece of pieces) connection.write(piece);
    const answer = await connection.receive(/"requestId":"[^"]+"\}/);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toMatch(/Content-Type: application\/problem\+json/);
    expect(JSON.parse(answer.slice(answer.indexOf('{')))).toEqual({
      type: `urn:naru:problem:${code.toLowerCase().replaceAll('_', '-')}`,
      title: expect.any(String),
      status,
      detail: expect.stringMatching(/\w+.*[.]$/),
      code,
      requestId: expect.any(String),
    });
    return connection;
  }

  async function refused(status: number, code: string, body: Buffer, headers: Record<string, string> = {}) {
    const connection = await refusal(
      status,
      code,
      postHead({ 'Content-Length': body.length, ...headers }),
      body,
    );
    connection.destroy();
  }

  describe('forms', () => {
    it('without a part named "images"', async () => {
      await refused(400, 'NO_IMAGE', Buffer.from(`--${BOUNDARY}--\r\n`));
    });

    it('with a file under another name', async () => {
      await refused(400, 'UNEXPECTED_FIELD', multipart({ bytes: good, name: 'photos' }));
    });

    it('with a text field', async () => {
      const headers = 'Content-Disposition: form-data; name="caption"';
      await refused(400, 'UNEXPECTED_FIELD', multipart({ bytes: good }, { bytes: 'A caption', headers }));
    });

    it('with a part named "images" that has no file name', async () => {
      await refused(
        400,
        'UNEXPECTED_FIELD',
        multipart({ bytes: good, headers: 'Content-Disposition: form-data; name="images"' }),
      );
    });

    it('with eleven images, none of which is kept', async () => {
      await refused(400, 'TOO_MANY_IMAGES', multipart(...Array(11).fill({ bytes: good })));
    });

    it('with 5,000 parts', async () => {
      await refused(
        400,
        'TOO_MANY_IMAGES',
        multipart(
          ...Array(5_000)
            .fill({ bytes: 'x' })
            .map((part, index) => (index < 10 ? { bytes: good } : part)),
        ),
      );
    });

    it('with 5,000 text fields', async () => {
      const headers = 'Content-Disposition: form-data; name="a"';
      await refused(400, 'UNEXPECTED_FIELD', multipart(...Array(5_000).fill({ bytes: 'x', headers })));
    });

    it('as a browser sends them when no file was chosen', async () => {
      await refused(400, 'NO_IMAGE', multipart({ bytes: '', headers: NAMELESS }));
    });

    it('with bytes that have no file name, beside an image that has one', async () => {
      await refused(400, 'UNEXPECTED_FIELD', multipart({ bytes: good }, { bytes: good, headers: NAMELESS }));
    });

    it('with a part of 0 bytes', async () => {
      await refused(400, 'NO_IMAGE', multipart({ bytes: '' }));
    });

    it('with a multipart form inside', async () => {
      const headers = `Content-Disposition: form-data; name="images"; filename="a.jpg"\r\nContent-Type: multipart/mixed; boundary=inner`;
      await refused(415, 'UNSUPPORTED_IMAGE', multipart({ bytes: '--inner\r\n\r\nx\r\n--inner--', headers }));
    });

    it('whose body ends in the middle of a part', async () => {
      const body = multipart({ bytes: await photo() });
      await refused(400, 'MALFORMED_MULTIPART', body.subarray(0, body.length / 2));
    });

    it('whose body ends before the last boundary is complete', async () => {
      const body = multipart({ bytes: good });
      await refused(400, 'MALFORMED_MULTIPART', body.subarray(0, body.length - 6));
    });

    it('of two images whose end is missing, every time', async () => {
      const body = multipart({ bytes: good }, { bytes: good });
      for (const cut of [3, 4, 6, 12, 40, 100, 300]) {
        await refused(400, 'MALFORMED_MULTIPART', body.subarray(0, body.length - cut));
      }
    });

    it('whose Content-Type names no boundary', async () => {
      await refused(400, 'MALFORMED_MULTIPART', multipart({ bytes: good }), {
        'Content-Type': 'multipart/form-data',
      });
    });

    it('whose Content-Type names another boundary', async () => {
      await refused(400, 'MALFORMED_MULTIPART', multipart({ bytes: good }), {
        'Content-Type': 'multipart/form-data; boundary=other',
      });
    });

    it('with a part whose head has no end', async () => {
      const headers = `Content-Disposition: form-data; name="images"; filename="${'a'.repeat(20_000)}.jpg"`;
      await refused(400, 'MALFORMED_MULTIPART', multipart({ bytes: good, headers }));
    });

    it.each(['application/json', 'image/jpeg', 'multipart/mixed; boundary=a-boundary', 'text/plain'])(
      'that are %s',
      async (type) => {
        await refused(415, 'UNSUPPORTED_MEDIA_TYPE', Buffer.from('{}'), { 'Content-Type': type });
      },
    );

    it('without any Content-Type or body', async () => {
      await replica.http
        .post('/images')
        .expect(415)
        .expect(/UNSUPPORTED_MEDIA_TYPE/);
    });
  });

  describe('files', () => {
    it.each([
      ['a PDF', Buffer.from('%PDF-1.7\n1 0 obj\n<<>>\nendobj\n')],
      ['HTML named .jpg', Buffer.from('<!doctype html><script>alert(1)</script>')],
      ['SVG', Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')],
      ['a single byte', Buffer.from([0xff])],
      ['zeros', Buffer.alloc(100_000)],
    ])('%s', async (_name, bytes) => {
      await refused(415, 'UNSUPPORTED_IMAGE', multipart({ bytes }));
    });

    it('a JPEG that is cut in half', async () => {
      const bytes = await photo();
      await refused(422, 'CORRUPT_IMAGE', multipart({ bytes: bytes.subarray(0, bytes.length / 2) }));
    });

    it('a large PNG that is cut off, of which the store has seen S3 parts already', async () => {
      const { width, height } = await sharp(await photo()).metadata();
      const bytes = await sharp(await photo())
        .resize(width, height)
        .png({ compressionLevel: 0 })
        .toBuffer();
      expect(bytes.length).toBeGreaterThan(11 * MiB);
      await refused(422, 'CORRUPT_IMAGE', multipart({ bytes: bytes.subarray(0, 11 * MiB) }));
    });

    it('a PNG that claims 100,000 × 100,000 pixels', async () => {
      const bytes = await sharp(good).png().toBuffer();
      bytes.writeUInt32BE(100_000, 16);
      bytes.writeUInt32BE(100_000, 20);
      await refused(422, 'TOO_MANY_PIXELS', multipart({ bytes }));
    });

    it('two images together, the second of which is a PDF', async () => {
      await refused(415, 'UNSUPPORTED_IMAGE', multipart({ bytes: await photo() }, { bytes: '%PDF-1.7\n' }));
    });

    it('a large image together with a PDF', async () => {
      await refused(
        415,
        'UNSUPPORTED_IMAGE',
        multipart({ bytes: await photoOf(12 * MiB) }, { bytes: '%PDF-1.7\n' }),
      );
    });
  });

  describe('what is too large', () => {
    it('an image of 20 MiB and one byte', async () => {
      await refused(413, 'IMAGE_TOO_LARGE', multipart({ bytes: await photoOf(MAX_IMAGE_BYTES + 1) }));
    });

    it('an image over a limit that is smaller than an S3 part', async () => {
      const strict = await Replica.start(bucket, { MAX_IMAGE_BYTES: '1000' });
      const { body } = await strict.upload(await smallPhoto(400)).expect(413);
      expect(body.code).toBe('IMAGE_TOO_LARGE');
      await strict.close();
    });

    it('a second image over the limit, and takes the first one back', async () => {
      await refused(
        413,
        'IMAGE_TOO_LARGE',
        multipart({ bytes: good }, { bytes: await photoOf(MAX_IMAGE_BYTES + 1) }),
      );
    });

    it('a request whose Content-Length says so, before its body is read and without 100 Continue', async () => {
      const connection = await refusal(
        413,
        'IMAGE_TOO_LARGE',
        postHead({ 'Content-Length': 300 * MiB, Expect: '100-continue' }),
      );
      expect(connection.text).not.toContain('100 Continue');
      expect(connection.text).toContain('Connection: close');
      await connection.closed;
    });

    it('a chunked request that declares nothing and never ends', async () => {
      const strict = await Replica.start(bucket, { MAX_IMAGE_BYTES: '100000', MAX_IMAGES_PER_REQUEST: '1' });
      const connection = await strict.connect();
      connection.write(postHead({ 'Transfer-Encoding': 'chunked' }));
      const flood = Buffer.concat([multipart({ bytes: good }), Buffer.alloc(200_000)]);
      connection.write(`${flood.length.toString(16)}\r\n`);
      connection.write(flood);
      expect(await connection.receive(/"requestId"/)).toMatch(/^HTTP\/1\.1 413 /);
      connection.destroy();
      await strict.close();
    });

    it('a client that goes on sending, which still gets to read the answer', async () => {
      const connection = await replica.connect();
      connection.write(postHead({ 'Content-Length': 300 * MiB }));
      // More than any socket buffer holds: were it not read on the other side, it could not be sent.
      for (let sent = 0; sent < 40; sent += 1) {
        const flushed = new Promise((resolve) => connection.socket.write(Buffer.alloc(MiB), resolve));
        await flushed;
      }
      expect(await connection.receive(/"requestId"/)).toMatch(/^HTTP\/1\.1 413 /);
      connection.destroy();
    });

    it('a client that never stops sending, only so long', async () => {
      const connection = await replica.connect();
      connection.write(postHead({ 'Content-Length': 300 * MiB }));
      let sent = 0;
      const piece = Buffer.alloc(MiB);
      while (!connection.socket.destroyed && sent < 300) {
        await Promise.race([
          new Promise((resolve) => connection.socket.write(piece, resolve)),
          connection.closed,
        ]);
        sent += 1;
      }
      expect(connection.socket.destroyed).toBe(true);
      expect(sent).toBeGreaterThanOrEqual(64);
      expect(sent).toBeLessThan(100);
    });
  });

  describe('clients', () => {
    it('that send a byte now and then, after a bounded time', async () => {
      const impatient = await Replica.start(bucket, { UPLOAD_TIMEOUT_MS: '1500' });
      const body = multipart({ bytes: await photo() });
      const connection = await impatient.connect();
      connection.write(postHead({ 'Content-Length': body.length }));
      connection.write(body.subarray(0, 1_000));
      let at = 1_000;
      const drip = setInterval(() => {
        connection.write(body.subarray(at, (at += 1)));
      }, 200);
      const answer = await connection.receive(/"requestId"/);
      clearInterval(drip);
      expect(answer).toMatch(/^HTTP\/1\.1 408 [\s\S]*"code":"UPLOAD_TIMEOUT"/);
      connection.destroy();
      await impatient.close();
    });

    it('that reset the connection, at each of 20 offsets', async () => {
      const body = multipart({ bytes: await photoOf(11 * MiB) }, { bytes: await photo() });
      for (let step = 0; step < 20; step += 1) {
        const connection = await replica.connect();
        connection.write(postHead({ 'Content-Length': body.length }));
        connection.write(body.subarray(0, Math.floor((body.length * step) / 20)));
        await new Promise((resolve) => setTimeout(resolve, 20 + step));
        connection.destroy();
      }
      await until(async () => (await metric('naru_uploads_in_flight')) === 0);
      await until(async () => (await metric('naru_http_requests_in_flight')) === 1);
    });

    it('and keeps the connection of one whose refused body was read to its end', async () => {
      const body = multipart({ bytes: '%PDF-1.7\n' });
      const connection = await refusal(
        415,
        'UNSUPPORTED_IMAGE',
        postHead({ 'Content-Length': body.length }),
        body,
      );
      const second = multipart({ bytes: good });
      connection.write(postHead({ 'Content-Length': second.length }));
      connection.write(second);
      await connection.receive(/HTTP\/1\.1 201 [\s\S]*"images":/);
      connection.destroy();
      await bucket.empty();
    });
  });

  it('accepts a GIF with a zip behind it, and serves it as the GIF that it is', async () => {
    const gif = await sharp(good).gif().toBuffer();
    const { body } = await replica
      .upload(Buffer.concat([gif, Buffer.from('PK\x03\x04 a zip archive')]))
      .expect(201);
    const { headers } = await replica.http.get(body.images[0].url).expect(200);
    expect(headers).toMatchObject({ 'content-type': 'image/gif', 'x-content-type-options': 'nosniff' });
    await bucket.empty();
  });
});
