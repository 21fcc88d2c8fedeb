import {
  CopyObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
} from '@aws-sdk/client-s3';
import { EmbeddedStore } from './embedded-store.js';

let store: EmbeddedStore;

beforeEach(async () => {
  store = await EmbeddedStore.start();
  await store.send({
    method: 'PUT',
    path: '/bucket/key',
    headers: { 'content-type': 'image/png', 'x-amz-meta-a': 'b', 'cache-control': 'no-store' },
    body: 'hello',
  });
});

afterEach(async () => {
  await store.stop();
});

describe('what the store does not do is refused, never passed over', () => {
  it.each([
    'acl',
    'cors',
    'encryption',
    'lifecycle',
    'policy',
    'tagging',
    'versioning',
    'versions',
    'x-unknown',
  ])('the sub-resource %s', async (name) => {
    for (const path of ['/bucket', '/bucket/key']) {
      for (const method of ['GET', 'PUT', 'DELETE', 'POST']) {
        const answer = await store.send({ method, path, query: { [name]: '' }, body: 'changed' });
        expect(answer).toMatchObject({ status: 501, code: 'NotImplemented' });
      }
    }
    expect((await store.send({ path: '/bucket/key' })).body).toBe('hello');
  });

  it.each([
    ['x-amz-acl', 'public-read'],
    ['x-amz-server-side-encryption', 'AES256'],
    ['x-amz-tagging', 'a=b'],
    ['x-amz-object-lock-mode', 'GOVERNANCE'],
    ['x-amz-storage-class', 'GLACIER'],
    ['if-none-match', '"other"'],
    ['if-unmodified-since', 'Thu, 01 Jan 1970 00:00:00 GMT'],
  ])('the header %s of a put', async (name, value) => {
    const answer = await store.send({
      method: 'PUT',
      path: '/bucket/key',
      headers: { [name]: value },
      body: 'changed',
    });
    expect(answer).toMatchObject({ status: 501, code: 'NotImplemented' });
    expect((await store.send({ path: '/bucket/key' })).body).toBe('hello');
  });

  it('a part copied from an object', async () => {
    const headers = { 'x-amz-copy-source': '/bucket/key' };
    const query = { partNumber: '1', uploadId: 'x' };
    expect(await store.send({ method: 'PUT', path: '/bucket/key', query, headers })).toMatchObject({
      status: 501,
    });
  });

  it('a delete under a condition', async () => {
    const headers = { 'if-match': '"other"' };
    expect(await store.send({ method: 'DELETE', path: '/bucket/key', headers })).toMatchObject({
      status: 501,
    });
  });

  it('another method', async () => {
    expect(await store.send({ method: 'PATCH', path: '/bucket/key' })).toMatchObject({ status: 405 });
    expect(await store.send({ method: 'PUT', path: '/' })).toMatchObject({ status: 405 });
  });
});

describe('user metadata', () => {
  it('has 2 KiB at most, names and values together', async () => {
    const put = async (bytes: number) =>
      await store.send({
        method: 'PUT',
        path: '/bucket/meta',
        headers: { 'x-amz-meta-ab': 'x'.repeat(bytes - 2) },
      });
    expect(await put(2049)).toMatchObject({ status: 400, code: 'MetadataTooLarge' });
    expect(await store.send({ path: '/bucket/meta' })).toMatchObject({ status: 404 });
    expect(await put(2048)).toMatchObject({ status: 200 });
    expect((await store.send({ path: '/bucket/meta' })).headers['x-amz-meta-ab']).toHaveLength(2046);
  });
});

describe('a read', () => {
  it('says its headers otherwise if a query asks for it', async () => {
    const query = {
      'response-content-type': 'text/plain',
      'response-content-disposition': 'attachment; filename="한글"',
      'response-cache-control': 'max-age=1',
    };
    const { status, headers } = await store.send({ path: '/bucket/key', query });
    expect(status).toBe(200);
    expect(headers).toMatchObject({
      'content-type': 'text/plain',
      'cache-control': 'max-age=1',
      'content-disposition': Buffer.from('attachment; filename="한글"').toString('latin1'),
    });
  });

  it('lets no header be smuggled in that way', async () => {
    const query = { 'response-content-type': 'text/plain\r\nset-cookie: a=b' };
    expect(await store.send({ path: '/bucket/key', query })).toMatchObject({
      status: 400,
      code: 'InvalidArgument',
    });
  });

  it('takes a range only while If-Range holds', async () => {
    const { headers } = await store.send({ path: '/bucket/key' });
    const ranged = async (ifRange: string) =>
      await store.send({ path: '/bucket/key', headers: { range: 'bytes=0-0', 'if-range': ifRange } });
    expect(await ranged(headers.etag!)).toMatchObject({ status: 206, body: 'h' });
    expect(await ranged('"other"')).toMatchObject({ status: 200, body: 'hello' });
  });

  it.each(['bytes=0-0,2-3', 'bytes=3-1', 'bytes=x-y', 'bytes=-', 'items=0-1', ''])(
    'of the range "%s", which nobody can serve, is of the whole object',
    async (range) => {
      expect(await store.send({ path: '/bucket/key', headers: { range } })).toMatchObject({
        status: 200,
        body: 'hello',
      });
    },
  );

  it.each(['bytes=5-', 'bytes=5-9', 'bytes=-0', 'bytes=999999999999999-'])(
    'of the range %s, which is past the end, says how long the object is',
    async (range) => {
      const { status, code, headers } = await store.send({ path: '/bucket/key', headers: { range } });
      expect([status, code, headers['content-range']]).toEqual([416, 'InvalidRange', 'bytes */5']);
    },
  );

  it('checks If-Match before If-None-Match, and each before its date', async () => {
    const { headers } = await store.send({ path: '/bucket/key' });
    const etag = headers.etag!;
    const past = 'Thu, 01 Jan 1970 00:00:00 GMT';
    const future = new Date(Date.now() + 60_000).toUTCString();
    const read = async (conditions: Record<string, string>) =>
      (await store.send({ path: '/bucket/key', headers: conditions })).status;
    expect(await read({ 'if-match': '"other"', 'if-none-match': etag })).toBe(412);
    expect(await read({ 'if-match': etag, 'if-unmodified-since': past })).toBe(200);
    expect(await read({ 'if-unmodified-since': past })).toBe(412);
    expect(await read({ 'if-none-match': '"other"', 'if-modified-since': future })).toBe(200);
    expect(await read({ 'if-modified-since': future })).toBe(304);
    expect(await read({ 'if-none-match': '*' })).toBe(304);
    expect(await read({ 'if-match': etag.replaceAll('"', '') })).toBe(200);
    expect(await read({ 'if-none-match': `"a", ${etag}` })).toBe(304);
  });

  it('goes on with the same bytes when the object is replaced or deleted', async () => {
    const bytes = Buffer.alloc(20_000_000, 'a');
    await store.send({ method: 'PUT', path: '/bucket/large', body: bytes });
    const { Body } = await store.client.send(new GetObjectCommand({ Bucket: 'bucket', Key: 'large' }));
    await store.send({ method: 'PUT', path: '/bucket/large', body: 'b' });
    await store.send({ method: 'DELETE', path: '/bucket/large' });
    expect(Buffer.from(await Body!.transformToByteArray()).equals(bytes)).toBe(true);
  });
});

describe('twenty puts of one key at once', () => {
  it('leave one of them, whole', async () => {
    const bodies = Array.from({ length: 20 }, (_, i) => Buffer.alloc(200_000, String.fromCharCode(97 + i)));
    await Promise.all(bodies.map((body) => store.send({ method: 'PUT', path: '/bucket/race', body })));
    const { body } = await store.send({ path: '/bucket/race' });
    expect(bodies.map(String)).toContain(body);
  });

  it('with If-None-Match: * are one put and nineteen refusals', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        store.send({
          method: 'PUT',
          path: '/bucket/once',
          headers: { 'if-none-match': '*' },
          body: Buffer.alloc(200_000, String.fromCharCode(97 + i)),
        }),
      ),
    );
    expect(answers.map(({ code }) => code).sort()).toEqual([
      ...Array<string>(19).fill('PreconditionFailed'),
      undefined,
    ]);
    expect(await store.temporaryFiles()).toEqual([]);
  });
});

describe('a copy', () => {
  it('takes the metadata along, or replaces it', async () => {
    const copy = { Bucket: 'bucket', CopySource: 'bucket/key' };
    await store.client.send(new CopyObjectCommand({ ...copy, Key: 'copied' }));
    await store.client.send(
      new CopyObjectCommand({ ...copy, Key: 'replaced', MetadataDirective: 'REPLACE', Metadata: { c: 'd' } }),
    );
    const head = (Key: string) => store.client.send(new HeadObjectCommand({ Bucket: 'bucket', Key }));
    expect(await head('copied')).toMatchObject({
      Metadata: { a: 'b' },
      ContentType: 'image/png',
      ContentLength: 5,
    });
    expect((await head('replaced')).Metadata).toEqual({ c: 'd' });
    expect((await store.send({ path: '/bucket/replaced' })).body).toBe('hello');
  });

  it('onto itself has to change something', async () => {
    const CopySource = 'bucket/key';
    const copy = store.client.send(new CopyObjectCommand({ Bucket: 'bucket', Key: 'key', CopySource }));
    await expect(copy).rejects.toMatchObject({ name: 'InvalidRequest' });
  });

  it.each([
    ['bucket/other', 404, 'NoSuchKey'],
    ['other/key', 404, 'NoSuchBucket'],
    ['../etc/passwd', 404, 'NoSuchBucket'],
    ['bucket/key?versionId=1', 501, 'NotImplemented'],
    ['bucket', 400, 'InvalidArgument'],
    ['%ff/key', 400, 'InvalidArgument'],
  ])('of %s is refused', async (source, status, code) => {
    const headers = { 'x-amz-copy-source': source };
    expect(await store.send({ method: 'PUT', path: '/bucket/copy', headers })).toMatchObject({
      status,
      code,
    });
  });
});

describe('a delete of many', () => {
  it('without a checksum is refused', async () => {
    const body = '<Delete><Object><Key>key</Key></Object></Delete>';
    expect(await store.send({ method: 'POST', path: '/bucket', query: { delete: '' }, body })).toMatchObject({
      status: 400,
      code: 'InvalidRequest',
    });
    expect(await store.send({ path: '/bucket/key' })).toMatchObject({ status: 200 });
  });

  it('says which, unless it is to be quiet', async () => {
    const remove = async (Quiet: boolean) => {
      const Delete = { Objects: [{ Key: ' key & "more" ' }, { Key: 'key' }], Quiet };
      return (await store.client.send(new DeleteObjectsCommand({ Bucket: 'bucket', Delete }))).Deleted;
    };
    expect(await remove(false)).toEqual([{ Key: ' key & "more" ' }, { Key: 'key' }]);
    expect(await remove(true)).toBeUndefined();
    expect(await store.send({ path: '/bucket/key' })).toMatchObject({ status: 404 });
  });
});

describe('a bucket', () => {
  it('takes no object while it is deleted', async () => {
    for (let round = 0; round < 10; round++) {
      await store.send({ method: 'PUT', path: '/short' });
      const [put, deleted] = await Promise.all([
        store.send({ method: 'PUT', path: '/short/key', body: 'x' }),
        store.send({ method: 'DELETE', path: '/short' }),
      ]);
      expect([put.status, deleted.status]).toEqual(put.status === 200 ? [200, 409] : [404, 204]);
      await store.send({ method: 'DELETE', path: '/short/key' });
      await store.send({ method: 'DELETE', path: '/short' });
    }
    expect(await store.temporaryFiles()).toEqual([]);
  });

  it('says where it is', async () => {
    const { body } = await store.send({ path: '/bucket', query: { location: '' } });
    expect(body).toContain('<LocationConstraint></LocationConstraint>');
    const { headers } = await store.send({ method: 'HEAD', path: '/bucket' });
    expect(headers['x-amz-bucket-region']).toBe('us-east-1');
  });
});
