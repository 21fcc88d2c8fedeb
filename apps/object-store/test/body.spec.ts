import { createHash, createHmac, randomBytes } from 'node:crypto';
import { Agent } from 'node:http';
import { Readable } from 'node:stream';
import { crc32 } from 'node:zlib';
import { GetObjectCommand, PutObjectCommand, S3Client, type ChecksumAlgorithm } from '@aws-sdk/client-s3';
import { getSigningKey } from '@smithy/signature-v4';
import { decodeAwsChunked } from '../src/body/aws-chunked.js';
import { answerTo, credentials, EmbeddedStore, region, until, type RawRequest } from './embedded-store.js';

const UNSIGNED_TRAILER = 'STREAMING-UNSIGNED-PAYLOAD-TRAILER';
let store: EmbeddedStore;

beforeAll(async () => {
  store = await EmbeddedStore.start();
});

afterEach(async () => {
  // Whatever became of a body, nothing unfinished stays behind.
  await until(async () => (await store.temporaryFiles()).length === 0);
});

afterAll(async () => {
  await store.stop();
});

describe('a digest sent along', () => {
  const body = 'hello';

  it.each([
    ['content-md5', createHash('md5').update(body).digest('base64')],
    ['x-amz-checksum-crc32', base64Of(crc32(body))],
    ['x-amz-checksum-crc32c', 'mnG7TA=='],
    ['x-amz-checksum-sha1', createHash('sha1').update(body).digest('base64')],
    ['x-amz-checksum-sha256', createHash('sha256').update(body).digest('base64')],
  ])('%s is verified', async (header, value) => {
    const right = await put({ headers: { [header]: value }, body });
    expect(right.status).toBe(200);
    await remove();
    expect(await put({ headers: { [header]: value }, body: 'hallo' })).toMatchObject({
      status: 400,
      code: 'BadDigest',
    });
    expect(await read()).toMatchObject({ status: 404 });
  });

  it.each([
    ['content-md5', 'bm90IDE2', 'InvalidDigest'],
    ['content-md5', '', 'InvalidDigest'],
    ['x-amz-checksum-sha256', 'AAAA', 'InvalidRequest'],
  ])('%s: "%s" is refused as %s', async (header, value, code) => {
    expect(await put({ headers: { [header]: value }, body })).toMatchObject({ status: 400, code });
  });

  it.each(['crc64nvme', 'sha512', 'md5', 'xxhash64'])(
    'that nobody here can verify is refused: %s',
    async (algorithm) => {
      const headers = { [`x-amz-checksum-${algorithm}`]: 'AAAAAAAAAAA=' };
      expect(await put({ headers, body })).toMatchObject({ status: 501, code: 'NotImplemented' });
    },
  );

  it('in the signature has to be that of the body', async () => {
    const payload = createHash('sha256').update('other').digest('hex');
    expect(await put({ payload, body })).toMatchObject({ status: 400, code: 'XAmzContentSHA256Mismatch' });
    expect(await read()).toMatchObject({ status: 404 });
  });

  it('goes back with the answer', async () => {
    const value = base64Of(crc32(body));
    expect((await put({ headers: { 'x-amz-checksum-crc32': value }, body })).headers).toMatchObject({
      'x-amz-checksum-crc32': value,
    });
    await remove();
  });
});

describe('an aws-chunked body', () => {
  const trailer = `x-amz-checksum-crc32:${base64Of(crc32('hello'))}`;

  it('is stored without its framing', async () => {
    const answer = await put(chunked(`3\r\nhel\r\n2\r\nlo\r\n0\r\n${trailer}\r\n\r\n`));
    expect(answer.status).toBe(200);
    const { body, headers } = await read();
    expect([body, headers['content-encoding']]).toEqual(['hello', undefined]);
    await remove();
  });

  it('keeps the other content encodings', async () => {
    const { headers, ...rest } = chunked(`5\r\nhello\r\n0\r\n${trailer}\r\n\r\n`);
    await put({ headers: { ...headers, 'content-encoding': 'gzip,aws-chunked' }, ...rest });
    expect((await read()).headers['content-encoding']).toBe('gzip');
    await remove();
  });

  it.each(['CRC32', 'CRC32C', 'SHA1', 'SHA256'] as ChecksumAlgorithm[])(
    'of the SDK, streamed with a trailing %s, comes out as it went in',
    async (ChecksumAlgorithm) => {
      const client = new S3Client({ endpoint: store.server.url, region, credentials, forcePathStyle: true });
      const bytes = randomBytes(300_000);
      const target = { Bucket: 'bucket', Key: `sdk-${ChecksumAlgorithm}` };
      await client.send(
        new PutObjectCommand({
          ...target,
          Body: Readable.from([bytes.subarray(0, 100_000), bytes.subarray(100_000)]),
          ContentLength: bytes.length,
          ChecksumAlgorithm,
        }),
      );
      const { Body } = await client.send(new GetObjectCommand(target));
      expect(Buffer.from(await Body!.transformToByteArray()).equals(bytes)).toBe(true);
      client.destroy();
    },
  );

  it.each([
    ['ends in mid-chunk', '5\r\nhel', 'IncompleteBody'],
    ['ends before its last chunk', '5\r\nhello\r\n', 'IncompleteBody'],
    ['ends before its trailer', '5\r\nhello\r\n0\r\n', 'IncompleteBody'],
    ['is shorter than announced', `3\r\nhel\r\n0\r\n${trailer}\r\n\r\n`, 'IncompleteBody'],
    ['is longer than announced', `6\r\nhello!\r\n0\r\n${trailer}\r\n\r\n`, 'IncompleteBody'],
    ['has a size that is no number', `x\r\nhello\r\n0\r\n${trailer}\r\n\r\n`, 'InvalidRequest'],
    ['has a negative size', `-5\r\nhello\r\n0\r\n${trailer}\r\n\r\n`, 'InvalidRequest'],
    ['has no end of line after a chunk', `5\r\nhello0\r\n${trailer}\r\n\r\n`, 'InvalidRequest'],
    ['goes on after its end', `5\r\nhello\r\n0\r\n${trailer}\r\n\r\nmore`, 'InvalidRequest'],
    ['has an endless line', '1'.repeat(10_000), 'InvalidRequest'],
    ['lacks the trailer announced', '5\r\nhello\r\n0\r\n\r\n', 'InvalidRequest'],
    ['has another checksum', '5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n', 'BadDigest'],
  ])('that %s is refused and leaves nothing', async (_, body, code) => {
    expect(await put(chunked(body))).toMatchObject({ status: 400, code });
    expect(await read()).toMatchObject({ status: 404 });
  });

  it('has to announce its length without framing', async () => {
    const { headers, ...rest } = chunked('0\r\n\r\n');
    Reflect.deleteProperty(headers, 'x-amz-decoded-content-length');
    expect(await put({ headers, ...rest })).toMatchObject({
      status: 411,
      code: 'MissingContentLength',
    });
  });

  it.each([1, 2, 7, 64, 100_000])('may come %i bytes at a time', async (size) => {
    const body = Buffer.from(`3\r\nhel\r\n2\r\nlo\r\n0\r\n${trailer}\r\n\r\n`);
    const trailers = new Map<string, string>();
    const decoded = decodeAwsChunked(slices(body, size), { signature: undefined, trailers: true }, trailers);
    expect((await collect(decoded)).toString()).toBe('hello');
    expect([...trailers]).toEqual([['x-amz-checksum-crc32', base64Of(crc32('hello'))]]);
  });
});

// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and …/sigv4-streaming-trailers.html
describe('a signed aws-chunked body', () => {
  const chunks = [Buffer.alloc(65_536, 'a'), Buffer.alloc(1024, 'a'), Buffer.alloc(0)];
  const plain = {
    seed: '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9',
    signatures: [
      'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
      '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497',
      'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9',
    ],
    end: '\r\n',
  };
  const trailing = {
    seed: '106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e',
    signatures: [
      'b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2',
      '1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7',
      '2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992',
    ],
    end:
      'x-amz-checksum-crc32c:sOO8/Q==\r\n' +
      'x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n',
  };

  it('is the one of the example in the S3 documentation', async () => {
    expect((await decodeExample(plain)).equals(Buffer.concat(chunks))).toBe(true);
  });

  it('with a signed trailer is the one of the example in the S3 documentation', async () => {
    expect((await decodeExample(trailing)).equals(Buffer.concat(chunks))).toBe(true);
  });

  it.each([0, 1, 2])('is refused when signature %i is another', async (index) => {
    const signatures = plain.signatures.with(index, 'f'.repeat(64));
    await expect(decodeExample({ ...plain, signatures })).rejects.toMatchObject({
      code: 'SignatureDoesNotMatch',
    });
  });

  it('is refused when its trailer is another', async () => {
    const end = trailing.end.replace('sOO8', 'sOO9');
    await expect(decodeExample({ ...trailing, end })).rejects.toMatchObject({
      code: 'SignatureDoesNotMatch',
    });
  });

  it('whose second chunk is forged leaves nothing, and the connection is still good', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const sent = await signedPut(Buffer.alloc(300_000, 'x'), agent, (body) => {
      body[200_000] = 0;
    });
    expect(sent).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' });
    expect(await read({ agent })).toMatchObject({ status: 404 });
    agent.destroy();
  });

  it('is stored when every chunk is right', async () => {
    const bytes = Buffer.alloc(300_000, 'x');
    expect(await signedPut(bytes)).toMatchObject({ status: 200 });
    expect((await read()).body).toBe(bytes.toString());
    await remove();
  });

  async function decodeExample({ seed, signatures, end }: typeof plain): Promise<Buffer> {
    const framed = chunks.map((chunk, index) => {
      const header = `${chunk.length.toString(16)};chunk-signature=${signatures[index]}\r\n`;
      return Buffer.concat([Buffer.from(header), chunk, Buffer.from(chunk.length > 0 ? '\r\n' : '')]);
    });
    const body = Buffer.concat([...framed, Buffer.from(end)]);
    const secret = {
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
      secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
    };
    const signature = {
      signature: seed,
      date: '20130524T000000Z',
      scope: '20130524/us-east-1/s3/aws4_request',
      signingKey: await signingKey(secret, '20130524'),
      payload: '',
    };
    const format = { signature, trailers: end !== '\r\n' };
    return await collect(decodeAwsChunked(slices(body, 16_384), format, new Map()));
  }
});

describe('a body', () => {
  it('without a length is refused', async () => {
    const headers = { 'transfer-encoding': 'chunked' };
    expect(await put({ headers, body: 'x' })).toMatchObject({ status: 411, code: 'MissingContentLength' });
  });

  it('is asked for only when the signature and the headers are in order', async () => {
    const expectation = { expect: '100-continue' };
    for (const [how, status] of [
      [{ signWith: { secretAccessKey: 'another' } }, 403],
      [{ headers: { 'content-md5': 'x' } }, 400],
      [{ headers: { 'x-amz-meta-a': 'x'.repeat(2048) } }, 400],
      [{ path: '/no-such-bucket/key' }, 404],
      [{}, 200],
    ] as const) {
      const put = { method: 'PUT', path: '/bucket/key', body: 'hello', ...how };
      const headers = { ...(await store.sign(put)), ...expectation };
      const agent = new Agent({ keepAlive: true });
      const sent = store.open({ ...put, headers, agent });
      let asked = false;
      sent.once('continue', () => {
        asked = true;
        sent.end('hello');
      });
      sent.flushHeaders();
      const answer = await answerTo(sent);
      expect([answer.status, asked]).toEqual([status, status === 200]);
      // Whether the body that was not asked for still comes, nobody can tell.
      expect(answer.headers.connection).toBe(status === 200 ? 'keep-alive' : 'close');
      agent.destroy();
    }
    await remove();
  });

  it.each([0, 1, 65_536, 899_999])('that breaks off after %i bytes leaves nothing', async (bytes) => {
    const put = { method: 'PUT', path: '/bucket/key', payload: 'UNSIGNED-PAYLOAD' };
    const headers = await store.sign({ ...put, headers: { 'content-length': '900000' } });
    const sent = store.open({ ...put, headers });
    sent.on('error', () => undefined);
    await new Promise((resolve) => sent.write(Buffer.alloc(bytes || 1), resolve));
    await until(async () => (await store.temporaryFiles()).length > 0);
    sent.destroy();
    await until(async () => (await store.temporaryFiles()).length === 0);
    expect(await read()).toMatchObject({ status: 404 });
  });

  it('refused before it was read does not spoil the connection', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const body = Buffer.alloc(2_000_000);
    for (let i = 0; i < 3; i++) {
      const refused = await store.send({ method: 'PUT', path: '/no-such-bucket/key', body, agent });
      expect(refused).toMatchObject({ status: 404, code: 'NoSuchBucket' });
      expect(await read({ agent })).toMatchObject({ status: 404, code: 'NoSuchKey' });
    }
    agent.destroy();
  });
});

async function put(request: Omit<RawRequest, 'path'>) {
  return await store.send({ method: 'PUT', path: '/bucket/key', ...request });
}

async function read(request: object = {}) {
  return await store.send({ path: '/bucket/key', ...request });
}

async function remove() {
  await store.send({ method: 'DELETE', path: '/bucket/key' });
}

function chunked(body: string) {
  return {
    payload: UNSIGNED_TRAILER,
    headers: {
      'content-encoding': 'aws-chunked',
      'x-amz-decoded-content-length': '5',
      'x-amz-trailer': 'x-amz-checksum-crc32',
    },
    body,
  };
}

async function signedPut(bytes: Buffer, agent?: Agent, tamper: (body: Buffer) => void = () => undefined) {
  const path = '/bucket/key';
  const pieces = [0, 1, 2].map((i) => bytes.subarray(i * 100_000, (i + 1) * 100_000)).concat(Buffer.alloc(0));
  const frames = (signatures: readonly string[]) =>
    Buffer.concat(
      pieces.flatMap((piece, i) => [
        Buffer.from(`${piece.length.toString(16)};chunk-signature=${signatures[i]}\r\n`),
        piece,
        Buffer.from('\r\n'),
      ]),
    );
  const headers = await store.sign({
    method: 'PUT',
    path,
    payload: 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
    headers: {
      'content-encoding': 'aws-chunked',
      'content-length': String(frames(pieces.map(() => '0'.repeat(64))).length),
      'x-amz-decoded-content-length': String(bytes.length),
    },
  });
  const date = headers['x-amz-date'] ?? '';
  const key = await signingKey(credentials, date.slice(0, 8));
  let previous = /Signature=(.*)$/.exec(headers['authorization'] ?? '')?.[1] ?? '';
  const signatures = pieces.map((piece) => {
    const nothing = createHash('sha256').digest('hex');
    const hash = createHash('sha256').update(piece).digest('hex');
    const scope = `${date.slice(0, 8)}/${region}/s3/aws4_request`;
    const toSign = ['AWS4-HMAC-SHA256-PAYLOAD', date, scope, previous, nothing, hash].join('\n');
    return (previous = createHmac('sha256', key).update(toSign).digest('hex'));
  });
  const body = frames(signatures);
  tamper(body);
  return await store.sendAs({ method: 'PUT', path, headers, body, ...(agent ? { agent } : {}) });
}

async function signingKey(secret: typeof credentials, date: string): Promise<Uint8Array> {
  class Hmac {
    private readonly hmac;

    constructor(key?: unknown) {
      this.hmac = createHmac('sha256', key as string);
    }

    update(data: unknown): void {
      this.hmac.update(data as string);
    }

    digest(): Promise<Uint8Array> {
      return Promise.resolve(this.hmac.digest());
    }
  }
  return await getSigningKey(Hmac, secret, date, region, 's3');
}

// eslint-disable-next-line @typescript-eslint/require-await -- as a socket would give them
async function* slices(body: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < body.length; at += size) yield body.subarray(at, at + size);
}

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function base64Of(sum: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(sum);
  return bytes.toString('base64');
}
