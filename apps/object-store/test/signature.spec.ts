import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { jest } from '@jest/globals';
import { S3Request } from '../src/http/s3-request.js';
import { verifySignature } from '../src/signature/signature.js';
import { EmbeddedStore, type RawRequest } from './embedded-store.js';

const HOUR_MS = 60 * 60 * 1000;
let store: EmbeddedStore;

beforeAll(async () => {
  store = await EmbeddedStore.start();
  await store.send({ method: 'PUT', path: '/bucket/key', body: 'hello' });
});

afterAll(async () => {
  await store.stop();
});

describe('a signature in the header', () => {
  it('lets the request in', async () => {
    expect(await store.send({ path: '/bucket/key' })).toMatchObject({ status: 200, body: 'hello' });
  });

  it('is the one of the example in the S3 documentation', async () => {
    // https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, "Example: GET Object"
    const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.UTC(2013, 4, 24));
    const signature = 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41';
    const message = {
      method: 'GET',
      url: '/test.txt',
      headersDistinct: {
        host: ['examplebucket.s3.amazonaws.com'],
        range: ['bytes=0-9'],
        'x-amz-content-sha256': [createHash('sha256').digest('hex')],
        'x-amz-date': ['20130524T000000Z'],
        authorization: [
          'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,' +
            `SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=${signature}`,
        ],
      },
    } as unknown as IncomingMessage;
    const verified = verifySignature(new S3Request(message), {
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
      secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
      region: 'us-east-1',
    });
    await expect(verified).resolves.toMatchObject({ signature });
    clock.mockRestore();
  });

  it.each([
    ['of a wrong secret', { signWith: { secretAccessKey: 'another' } }, 403, 'SignatureDoesNotMatch'],
    ['of an unknown key', { signWith: { accessKeyId: 'another' } }, 403, 'InvalidAccessKeyId'],
    ['of another region', { signWith: { region: 'eu-west-1' } }, 400, 'AuthorizationHeaderMalformed'],
    ['16 minutes old', { signedAt: ago(16 / 60) }, 403, 'RequestTimeTooSkewed'],
    ['16 minutes ahead', { signedAt: ago(-16 / 60) }, 403, 'RequestTimeTooSkewed'],
    [
      'beside x-amz- headers it leaves out',
      { unsignedHeaders: { 'x-amz-meta-a': 'b' } },
      403,
      'AccessDenied',
    ],
    [
      'of another payload',
      { unsignedHeaders: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } },
      403,
      'SignatureDoesNotMatch',
    ],
    ['with a session token', { headers: { 'x-amz-security-token': 'x' } }, 400, 'InvalidToken'],
  ])('%s is refused', async (_, how, status, code) => {
    expect(await store.send({ path: '/bucket/key', ...how })).toMatchObject({ status, code });
  });

  it('14 minutes old lets the request in', async () => {
    expect(await store.send({ path: '/bucket/key', signedAt: ago(14 / 60) })).toMatchObject({ status: 200 });
  });

  it.each([
    ['path', { path: '/bucket/other' }],
    ['method', { method: 'DELETE' }],
    ['query', { query: { 'response-content-type': 'text/html' } }],
    ['host', { unsignedHeaders: { host: 'elsewhere' } }],
  ])('does not hold for another %s', async (_, other) => {
    const signed: RawRequest = { path: '/bucket/key', ...other };
    const headers = { ...(await store.sign({ path: '/bucket/key' })), ...signed.unsignedHeaders };
    const answer = await store.sendAs({ ...signed, headers });
    expect(answer).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' });
  });

  it.each(['', 'Basic dXNlcg==', 'AWS key:signature', 'AWS4-HMAC-SHA256', 'AWS4-HMAC-SHA256 Credential=a/b'])(
    'is not found in "%s", which is refused',
    async (authorization) => {
      const { status } = await store.sendAs({ path: '/bucket/key', headers: { authorization } });
      expect([400, 403]).toContain(status);
    },
  );
});

describe('a request without a signature', () => {
  it.each(['GET', 'HEAD', 'PUT', 'POST', 'DELETE', 'OPTIONS'])('is refused: %s', async (method) => {
    expect(await store.sendAs({ method, path: '/bucket/key' })).toMatchObject({ status: 403 });
  });

  it('is told why, as S3 words it', async () => {
    const { body, headers } = await store.sendAs({ path: '/bucket/key' });
    expect(headers['content-type']).toBe('application/xml');
    expect(body).toMatch(
      /^<\?xml .*\n<Error><Code>AccessDenied<\/Code><Message>.+<\/Message><Resource>\/bucket\/key<\/Resource><RequestId>[0-9A-F]{16}<\/RequestId><\/Error>$/,
    );
    expect(body).toContain(String(headers['x-amz-request-id']));
  });
});

describe('a presigned URL', () => {
  it('lets whoever holds it in', async () => {
    const path = await store.presign({ path: '/bucket/key' });
    expect(await store.sendAs({ path })).toMatchObject({ status: 200, body: 'hello' });
  });

  it('puts, with the metadata that was signed', async () => {
    const headers = { 'x-amz-meta-name': 'a b', 'content-type': 'image/png' };
    const path = await store.presign({ method: 'PUT', path: '/bucket/presigned', headers });
    const sent = { 'content-type': 'image/png', 'content-length': '5' };
    expect(await store.sendAs({ method: 'PUT', path, headers: sent, body: 'image' })).toMatchObject({
      status: 200,
    });
    const { headers: got } = await store.send({ path: '/bucket/presigned' });
    expect(got).toMatchObject({ 'content-type': 'image/png', 'x-amz-meta-name': 'a b' });
  });

  it.each([
    ['has expired', { signedAt: ago(1), expiresInS: 60 }, 403, 'AccessDenied'],
    ['is for the day after tomorrow', { signedAt: ago(-48) }, 403, 'RequestTimeTooSkewed'],
    ['is of a wrong secret', { signWith: { secretAccessKey: 'another' } }, 403, 'SignatureDoesNotMatch'],
  ])('that %s is refused', async (_, how, status, code) => {
    expect(await store.sendAs({ path: await store.presign({ path: '/bucket/key', ...how }) })).toMatchObject({
      status,
      code,
    });
  });

  it('made an hour ago to last for two lets in', async () => {
    const path = await store.presign({ path: '/bucket/key', signedAt: ago(1), expiresInS: 7200 });
    expect(await store.sendAs({ path })).toMatchObject({ status: 200 });
  });

  it.each([
    ['another key', (path: string) => path.replace('/key', '/other')],
    ['a longer life', (path: string) => path.replace('X-Amz-Expires=60', 'X-Amz-Expires=6000')],
    ['another parameter', (path: string) => `${path}&response-content-type=text/html`],
  ])('cannot be changed to have %s', async (_, change) => {
    const path = change(await store.presign({ path: '/bucket/key' }));
    expect(await store.sendAs({ path })).toMatchObject({ status: 403, code: 'SignatureDoesNotMatch' });
  });

  it('cannot last longer than a week', async () => {
    const path = await store.presign({ path: '/bucket/key' });
    const longer = path.replace('X-Amz-Expires=60', 'X-Amz-Expires=604801');
    expect(await store.sendAs({ path: longer })).toMatchObject({
      status: 400,
      code: 'AuthorizationQueryParametersError',
    });
  });
});

function ago(hours: number): Date {
  return new Date(Date.now() - hours * HOUR_MS);
}
