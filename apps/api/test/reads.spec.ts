import { connect } from 'node:net';
import { once } from 'node:events';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { Bucket, MiB, photo, photoOf, Replica, smallPhoto, until } from './harness.js';
import { StoreProxy } from './store-proxy.js';

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

describe('GET and HEAD /images/{id}', () => {
  let bucket: Bucket;
  let replica: Replica;
  let bytes: Buffer;
  let path: string;
  let etag: string;
  let lastModified: string;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
    bytes = await photo();
    const { body } = await replica.upload({ bytes, name: 'night sky.jpg' }).expect(201);
    path = body.images[0].url;
    etag = body.images[0].etag;
    lastModified = (await read()).headers['last-modified'] as string;
  });
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  const read = (headers: Record<string, string> = {}, method = 'GET') => send(replica, path, headers, method);

  it('sends the bytes exactly, with every header that a cache, a browser and a downloader need', async () => {
    const answer = await read();
    expect(answer.status).toBe(200);
    expect(answer.body.equals(bytes)).toBe(true);
    expect(answer.headers).toMatchObject({
      'content-type': 'image/jpeg',
      'content-length': String(bytes.length),
      'cache-control': 'public, max-age=31536000, immutable',
      'x-content-type-options': 'nosniff',
      'content-disposition': 'inline; filename="night sky.jpg"',
      'accept-ranges': 'bytes',
      etag,
      'x-served-by': 'test-replica',
      'x-request-id': expect.stringMatching(/^[\da-f-]{36}$/),
    });
    expect(new Date(lastModified).toUTCString()).toBe(lastModified);
    expect(Math.abs(Date.now() - Date.parse(lastModified))).toBeLessThan(60_000);
  });

  it('answers HEAD with the head of GET, Content-Length included, and no body', async () => {
    const get = await read({ 'x-request-id': 'the-same' });
    const head = await read({ 'x-request-id': 'the-same' }, 'HEAD');
    expect(head.status).toBe(200);
    expect(head.body).toHaveLength(0);
    expect({ ...head.headers, date: '' }).toEqual({ ...get.headers, date: '' });
  });

  it('ignores a Range in HEAD, which has nothing to send in parts', async () => {
    const head = await read({ range: 'bytes=0-9' }, 'HEAD');
    expect(head.status).toBe(200);
    expect(head.headers['content-length']).toBe(String(bytes.length));
    expect(head.headers['content-range']).toBeUndefined();
  });

  describe('Range', () => {
    // Negative numbers count from the end, as in slice().
    it.each([
      ['from the first byte to the last that is named', 'bytes=0-9', 0, 10],
      ['one byte', 'bytes=7-7', 7, 8],
      ['a range in the middle', 'bytes=500000-600000', 500_000, 600_001],
      ['an open range, to the end', 'bytes=5-', 5, undefined],
      ['a suffix', 'bytes=-5', -5, undefined],
      ['up to the end when the last byte lies beyond it', 'bytes=800000-9999999', 800_000, undefined],
      ['the whole of it when a suffix is longer than the image', 'bytes=-99999999', 0, undefined],
      ['the whole of it when all is asked for', 'bytes=0-', 0, undefined],
    ])('sends %s (%s)', async (_what, range, start, end) => {
      const expected = bytes.subarray(start, end);
      const from = start < 0 ? bytes.length + start : start;
      const answer = await read({ range });
      expect(answer.status).toBe(206);
      expect(answer.body.equals(expected)).toBe(true);
      expect(answer.headers).toMatchObject({
        'content-range': `bytes ${from}-${from + expected.length - 1}/${bytes.length}`,
        'content-length': String(expected.length),
        'content-type': 'image/jpeg',
        'cache-control': 'public, max-age=31536000, immutable',
        'x-content-type-options': 'nosniff',
        etag,
        'last-modified': lastModified,
      });
    });

    it.each([
      ['begins beyond the end', 'bytes=9999999-'],
      ['begins just beyond the end', 'bytes=SIZE-'],
      ['is a suffix of no bytes', 'bytes=-0'],
    ])('answers 416 and the size when the range %s (%s)', async (_what, range) => {
      const answer = await read({ range: range.replace('SIZE', String(bytes.length)) });
      expectProblem(answer, 416, 'RANGE_NOT_SATISFIABLE');
      expect(answer.headers['content-range']).toBe(`bytes */${bytes.length}`);
      // What isn't the image must not be kept or named like it.
      expect(answer.headers['cache-control']).toBe('no-store');
      expect(answer.headers['etag']).toBeUndefined();
      expect(answer.headers['content-disposition']).toBeUndefined();
    });

    it.each([
      ['several ranges', 'bytes=0-9,20-29'],
      ['a range that ends before it begins', 'bytes=9-5'],
      ['no numbers', 'bytes=a-b'],
      ['a range and more', 'bytes=0-9x'],
      ['no dash', 'bytes=5'],
      ['no range at all', 'bytes='],
      ['neither end', 'bytes=-'],
      ['no unit', '0-9'],
      ['a unit that nobody knows', 'items=0-9'],
    ])('sends the whole image for %s (%s)', async (_what, range) => {
      const answer = await read({ range });
      expect(answer.status).toBe(200);
      expect(answer.headers['content-range']).toBeUndefined();
      expect(answer.headers['content-length']).toBe(String(bytes.length));
      expect(answer.body.equals(bytes)).toBe(true);
    });

    it.each([
      ['the ETag', () => etag],
      ['the date', () => lastModified],
    ])('sends the part when If-Range holds %s that the part at hand came with', async (_what, ifRange) => {
      const answer = await read({ range: 'bytes=0-9', 'if-range': ifRange() });
      expect(answer.status).toBe(206);
      expect(answer.body.equals(bytes.subarray(0, 10))).toBe(true);
    });

    it.each([
      ['another ETag', () => '"another"'],
      ['a weak ETag, which does not vouch for bytes', () => `W/${etag}`],
      ['an earlier date', () => new Date(Date.parse(lastModified) - 1_000).toUTCString()],
      ['a later date', () => new Date(Date.parse(lastModified) + 60_000).toUTCString()],
      ['garbage', () => 'yesterday'],
    ])('sends the whole image when If-Range holds %s', async (_what, ifRange) => {
      const answer = await read({ range: 'bytes=0-9', 'if-range': ifRange() });
      expect(answer.status).toBe(200);
      expect(answer.body.equals(bytes)).toBe(true);
    });

    it('sends the whole image, not 416, when If-Range does not match and the range lies outside', async () => {
      expect((await read({ range: 'bytes=9999999-', 'if-range': '"another"' })).status).toBe(200);
    });
  });

  describe('a condition', () => {
    const later = () => new Date(Date.parse(lastModified) + 60_000).toUTCString();
    const earlier = () => new Date(Date.parse(lastModified) - 60_000).toUTCString();

    it.each([
      ['If-None-Match holds the ETag', () => ({ 'if-none-match': etag })],
      ['If-None-Match holds it as a weak one', () => ({ 'if-none-match': `W/${etag}` })],
      ['If-None-Match holds it among others', () => ({ 'if-none-match': `"a", W/"b",${etag} , "c"` })],
      ['If-None-Match is *', () => ({ 'if-none-match': '*' })],
      ['If-Modified-Since is the date', () => ({ 'if-modified-since': lastModified })],
      ['If-Modified-Since is later', () => ({ 'if-modified-since': later() })],
      [
        'If-None-Match matches, whatever If-Modified-Since says',
        () => ({ 'if-none-match': etag, 'if-modified-since': earlier() }),
      ],
      ['it matches, whatever Range says', () => ({ 'if-none-match': etag, range: 'bytes=0-9' })],
      [
        'it matches, though the range lies outside',
        () => ({ 'if-none-match': etag, range: 'bytes=9999999-' }),
      ],
    ])('answers 304 without a body when %s', async (_what, headers) => {
      for (const method of ['GET', 'HEAD']) {
        const answer = await read(headers(), method);
        expect(answer.status).toBe(304);
        expect(answer.body).toHaveLength(0);
        expect(answer.headers).toMatchObject({
          etag,
          'cache-control': 'public, max-age=31536000, immutable',
          'last-modified': lastModified,
        });
        expect(answer.headers['content-range']).toBeUndefined();
      }
    });

    it.each([
      ['If-None-Match holds another ETag', () => ({ 'if-none-match': '"another"' })],
      ['If-None-Match holds it without quotes', () => ({ 'if-none-match': etag.replaceAll('"', '') })],
      ['If-Modified-Since is earlier', () => ({ 'if-modified-since': earlier() })],
      ['If-Modified-Since is garbage', () => ({ 'if-modified-since': 'garbage' })],
      [
        'If-None-Match does not match, whatever If-Modified-Since says',
        () => ({ 'if-none-match': '"another"', 'if-modified-since': later() }),
      ],
    ])('answers 200 when %s', async (_what, headers) => {
      const answer = await read(headers());
      expect(answer.status).toBe(200);
      expect(answer.body.equals(bytes)).toBe(true);
      expect((await read(headers(), 'HEAD')).status).toBe(200);
    });

    it('still sends a part when If-None-Match does not match', async () => {
      expect((await read({ 'if-none-match': '"another"', range: 'bytes=0-9' })).status).toBe(206);
    });
  });

  describe('an image that is not there', () => {
    it.each([
      ['an id that nobody has', `/images/${'0'.repeat(32)}`],
      ['an id that is too short', '/images/0123456789abcdef'],
      ['an id in upper case', `/images/${'A'.repeat(32)}`],
      ['an id with something behind it', `/images/${'0'.repeat(32)}.jpg`],
      ['a way out of the folder', '/images/..%2fsecrets'],
      ['a way back into it', `/images/..%2fimages%2f${'0'.repeat(32)}`],
      ['a NUL', '/images/%00'],
      ['a long id', `/images/${'0'.repeat(4_000)}`],
      ['nothing', '/images/%20'],
    ])('answers 404 for %s', async (_what, at) => {
      for (const suffix of ['', '/info']) {
        const answer = await send(replica, at + suffix);
        expectProblem(answer, 404, 'NOT_FOUND');
        expect(answer.headers['cache-control']).toBe('no-store');
      }
      const head = await send(replica, at, {}, 'HEAD');
      expect(head.status).toBe(404);
      expect(head.body).toHaveLength(0);
    });

    it('answers 404 for it to a request with a condition or a range as well', async () => {
      for (const headers of [{ range: 'bytes=0-9' }, { 'if-none-match': '*' }] as Record<string, string>[]) {
        expectProblem(await send(replica, `/images/${'0'.repeat(32)}`, headers), 404, 'NOT_FOUND');
      }
    });

    it('answers 400 for a path that cannot be decoded', async () => {
      expectProblem(await send(replica, '/images/%zz'), 400, 'INVALID_ARGUMENT');
      expectProblem(await send(replica, '/images/%zz/info'), 400, 'INVALID_ARGUMENT');
    });

    it('answers 405 for a method that an image does not have', async () => {
      for (const method of ['PUT', 'PATCH', 'POST']) {
        const answer = await send(replica, path, {}, method);
        expectProblem(answer, 405, 'METHOD_NOT_ALLOWED');
        expect(answer.headers['allow']).toBe('GET, HEAD, DELETE, OPTIONS');
      }
    });
  });
});

it('a fetch() that has the image already is told so, although fetch adds Cache-Control: no-cache', async () => {
  const bucket = await Bucket.open();
  const replica = await Replica.start(bucket);
  const { body } = await replica.upload(await smallPhoto()).expect(201);
  const [{ url, etag }] = body.images;
  const response = await fetch(`${replica.url}${url as string}`, { headers: { 'If-None-Match': etag } });
  expect(response.status).toBe(304);
  await replica.close();
  await bucket.close();
});

describe('the bytes of a large image on their way from the store', () => {
  // Larger than what the kernel may buffer of three sockets on the way.
  const size = 48 * MiB;
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: Replica;
  let bytes: Buffer;
  let path: string;

  beforeAll(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
    replica = await Replica.start(bucket, {
      S3_ENDPOINT: proxy.url,
      MAX_IMAGE_BYTES: String(size),
      S3_REQUEST_TIMEOUT_MS: '1000',
    });
    bytes = await photoOf(size);
    path = (await replica.upload(bytes).expect(201)).body.images[0].url;
  });
  beforeEach(() => {
    proxy.bytesFromStore = 0;
  });
  afterAll(async () => {
    await replica.close();
    await proxy.down();
    await bucket.close();
  });

  /** A client that has sent its request and reads only when told to. */
  async function pausedClient(headers = '') {
    const socket = connect({ port: replica.port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.pause();
    socket.write(`GET ${path} HTTP/1.1\r\nHost: naru.test\r\nConnection: close\r\n${headers}\r\n`);
    await until(() => proxy.bytesFromStore > 64 * 1024);
    return socket;
  }

  /** Waits until no more comes through. */
  async function settled(): Promise<number> {
    let before = -1;
    await until(async () => {
      before = proxy.bytesFromStore;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return proxy.bytesFromStore === before;
    });
    return proxy.bytesFromStore;
  }

  it('wait in the store while the client does not read', async () => {
    const socket = await pausedClient();
    const pulled = await settled();
    expect(pulled).toBeLessThan(size / 2);
    socket.destroy();
  });

  it('come whole to a client that stops reading for longer than the store may be silent', async () => {
    const socket = await pausedClient();
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    const answer = Buffer.concat(chunks);
    expect(answer.subarray(answer.indexOf('\r\n\r\n') + 4).equals(bytes)).toBe(true);
  });

  it('break off when the store falls silent in their midst', async () => {
    const socket = await pausedClient();
    await settled();
    proxy.silence();
    socket.resume();
    await once(socket, 'close');
    expect(socket.bytesRead).toBeLessThan(size);
    proxy.cut();
  });

  it('are no longer asked for when the client goes away', async () => {
    const socket = await pausedClient();
    const pulled = await settled();
    const open = proxy.openConnections;
    socket.resetAndDestroy();
    // The connection that carries them can't be used again, since what nobody wants is still in it.
    await until(() => proxy.openConnections < open, 2_000);
    expect(proxy.bytesFromStore).toBeLessThan(pulled + MiB);
  });

  it('are not asked for at all when only the head is', async () => {
    await send(replica, path, {}, 'HEAD');
    expect(await settled()).toBeLessThan(64 * 1024);
  });

  it('are asked for only as far as the range goes', async () => {
    const { status, body } = await send(replica, path, { range: `bytes=${size - 1_000}-` });
    expect(status).toBe(206);
    expect(body.equals(bytes.subarray(-1_000))).toBe(true);
    expect(await settled()).toBeLessThan(64 * 1024);
  });

  it('break off with the connection when the store breaks off, so that nobody takes them for whole', async () => {
    const socket = await pausedClient();
    await settled();
    proxy.cut();
    let received = 0;
    const closed = once(socket, 'close');
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    socket.resume();
    await closed;
    expect(received).toBeLessThan(size);
    expect((await send(replica, path, { range: 'bytes=0-9' })).status).toBe(206);
  });

  it('are answered with 503 when the store is down, and come again once it is up', async () => {
    await proxy.down();
    for (const method of ['GET', 'HEAD']) {
      const answer = await send(replica, path, {}, method);
      expect(answer.status).toBe(503);
      expect(answer.headers['retry-after']).toMatch(/^\d+$/);
      if (method === 'GET') expectProblem(answer, 503, 'STORE_UNAVAILABLE');
    }
    await proxy.up();
    expect((await send(replica, path, { range: 'bytes=0-9' })).status).toBe(206);
  });

  it('serve many clients over a few connections that are kept', async () => {
    const small = (await replica.upload(await smallPhoto()).expect(201)).body.images[0].url as string;
    await send(replica, small);
    const before = proxy.connectionsMade;
    for (let i = 0; i < 20; i += 1) await send(replica, small);
    // But for those of the probes, which have their own.
    expect(proxy.connectionsMade).toBeLessThanOrEqual(before + 2);
  });
});

function expectProblem(answer: Answer, status: number, code: string): void {
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  expect(JSON.parse(answer.body.toString())).toEqual({
    type: expect.any(String),
    title: expect.any(String),
    status,
    detail: expect.any(String),
    code,
    requestId: answer.headers['x-request-id'],
  });
  expect(answer.status).toBe(status);
}

/** Node's own client: it sends the path as it is given, and hands out what came, bytes and headers. */
async function send(
  replica: Replica,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> {
  const request = httpRequest({ host: '127.0.0.1', port: replica.port, path, method, headers }).end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) };
}
