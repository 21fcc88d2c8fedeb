import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  ListPartsCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { startObjectStore, type ObjectStoreServer } from '../src/object-store-server.js';

/**
 * What Naru relies on of an S3 endpoint, and no more: where stores differ, nothing is asked. Runs
 * against the embedded store, or against the endpoint that CONTRACT_S3_ENDPOINT, CONTRACT_S3_REGION,
 * CONTRACT_S3_ACCESS_KEY_ID and CONTRACT_S3_SECRET_ACCESS_KEY name, in a bucket of its own.
 */
const MiB = 1024 * 1024;
const endpoint = process.env['CONTRACT_S3_ENDPOINT'];
const bucket = `naru-contract-${randomBytes(6).toString('hex')}`;

let embedded: { server: ObjectStoreServer; dataDir: string } | undefined;
let settings: Awaited<ReturnType<typeof embed>>;
let client: S3Client;

beforeAll(async () => {
  settings = endpoint ? given(endpoint) : await embed();
  client = new S3Client({
    ...settings,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: 1,
    // What the SDK has to say about a stream that was broken off, on purpose.
    logger: { debug: ignore, info: ignore, warn: ignore, error: ignore },
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
});

afterAll(async () => {
  for (const { Key, UploadId } of await uploads('multipart')) {
    await client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }));
  }
  for (const Key of await keys('')) await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
  await client.send(new DeleteBucketCommand({ Bucket: bucket }));
  client.destroy();
  await embedded?.server.close();
  if (embedded) await rm(embedded.dataDir, { recursive: true });
});

describe('a bucket', () => {
  it('answers that it is there', async () => {
    await expect(client.send(new HeadBucketCommand({ Bucket: bucket }))).resolves.toBeDefined();
  });

  it('that is not there is a 404', async () => {
    expect(await statusOf(client.send(new HeadBucketCommand({ Bucket: `${bucket}-not` })))).toBe(404);
  });

  it('can be asked for again by its owner', async () => {
    const again = client.send(new CreateBucketCommand({ Bucket: bucket }));
    const outcome = await again.then(() => 'made', nameOf);
    expect(['made', 'BucketAlreadyOwnedByYou']).toContain(outcome);
  });

  it('is not deleted while it has an object', async () => {
    await put('keeps/bucket', 'x');
    expect(await nameOfError(client.send(new DeleteBucketCommand({ Bucket: bucket })))).toBe(
      'BucketNotEmpty',
    );
  });
});

describe('a put', () => {
  it('is there with its bytes, type, headers and metadata when it has resolved', async () => {
    const body = randomBytes(900_000);
    const { ETag } = await client.send(
      new PutObjectCommand({
        Bucket: bucket,
        Key: 'put/whole',
        Body: body,
        ContentType: 'image/jpeg',
        CacheControl: 'public, max-age=31536000, immutable',
        ContentDisposition: `inline; filename*=UTF-8''%ED%95%9C.jpg`,
        Metadata: { 'original-name': '%ED%95%9C.jpg', width: '4000' },
      }),
    );
    const got = await get('put/whole');
    expect(got.bytes.equals(body)).toBe(true);
    expect(got.answer).toMatchObject({
      ETag,
      ContentLength: 900_000,
      ContentType: 'image/jpeg',
      CacheControl: 'public, max-age=31536000, immutable',
      ContentDisposition: `inline; filename*=UTF-8''%ED%95%9C.jpg`,
      Metadata: { 'original-name': '%ED%95%9C.jpg', width: '4000' },
    });
    expect(Math.abs(Date.now() - got.answer.LastModified!.getTime())).toBeLessThan(60_000);
  });

  it('of one request has the MD5 of its bytes as entity tag', async () => {
    const { ETag } = await put('put/etag', 'hello');
    expect(ETag).toBe(`"${md5('hello')}"`);
  });

  it('of no bytes is an object of no bytes', async () => {
    await put('put/empty', Buffer.alloc(0));
    const { bytes, answer } = await get('put/empty');
    expect([bytes.length, answer.ContentLength]).toEqual([0, 0]);
  });

  it('replaces what had its key, metadata included', async () => {
    await client.send(
      new PutObjectCommand({ Bucket: bucket, Key: 'put/twice', Body: 'first', Metadata: { of: 'first' } }),
    );
    await put('put/twice', 'second');
    const { bytes, answer } = await get('put/twice');
    expect([bytes.toString(), answer.Metadata]).toEqual(['second', {}]);
  });

  it('with If-None-Match: * is refused where there is an object', async () => {
    await put('put/once', 'first');
    const second = client.send(
      new PutObjectCommand({ Bucket: bucket, Key: 'put/once', Body: 'second', IfNoneMatch: '*' }),
    );
    expect(await statusOf(second)).toBe(412);
    expect((await get('put/once')).bytes.toString()).toBe('first');
  });

  it('with If-Match replaces that object alone, and none that is gone', async () => {
    const Key = 'put/match';
    const putOver = (Body: string, IfMatch: string | undefined) =>
      client.send(new PutObjectCommand({ Bucket: bucket, Key, Body, IfMatch }));
    await put(Key, 'first');
    const first = (await get(Key)).answer.ETag;
    const { ETag: second } = await putOver('second', first);
    expect(await statusOf(putOver('third', first))).toBe(412);
    expect((await get(Key)).bytes.toString()).toBe('second');
    await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
    expect([404, 412]).toContain(await statusOf(putOver('fourth', second)));
  });

  it('with If-None-Match: * is won by one of twenty at once', async () => {
    const attempts = Array.from({ length: 20 }, (_, i) =>
      statusOf(
        client.send(
          new PutObjectCommand({
            Bucket: bucket,
            Key: 'put/race',
            Body: Buffer.alloc(100_000, i),
            IfNoneMatch: '*',
          }),
        ),
      ),
    );
    const statuses = await Promise.all(attempts);
    expect(statuses.filter((status) => status === 200)).toHaveLength(1);
    // A store may say that another request is at it instead (409).
    expect(statuses.filter((status) => status === 412 || status === 409)).toHaveLength(19);
    expect((await get('put/race')).bytes.equals(Buffer.alloc(100_000, statuses.indexOf(200)))).toBe(true);
  });

  it('whose MD5 is not that of its bytes leaves nothing', async () => {
    const wrong = client.send(
      new PutObjectCommand({
        Bucket: bucket,
        Key: 'put/wrong',
        Body: 'hello',
        ContentMD5: createHash('md5').update('other').digest('base64'),
      }),
    );
    expect(await nameOfError(wrong)).toBe('BadDigest');
    expect(await exists('put/wrong')).toBe(false);
  });

  it('that is aborted in mid-body leaves nothing', async () => {
    const abort = new AbortController();
    const body = new Readable({ read: () => undefined });
    body.push(randomBytes(200_000));
    const aborted = client.send(
      new PutObjectCommand({ Bucket: bucket, Key: 'put/aborted', Body: body, ContentLength: 900_000 }),
      { abortSignal: abort.signal },
    );
    setTimeout(() => {
      abort.abort();
    }, 100);
    await expect(aborted).rejects.toThrow();
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await exists('put/aborted')).toBe(false);
  });

  it('keeps any key apart from any other', async () => {
    const names = [
      '한글/사진.jpg',
      'a b+c%20d',
      'emoji-😀',
      'quote"\'<&>',
      'Case',
      'case',
      'dot.',
      'x'.repeat(200),
    ];
    for (const name of names) await put(`keys/${name}`, name);
    for (const name of names) expect((await get(`keys/${name}`)).bytes.toString()).toBe(name);
    expect((await keys('keys/')).sort()).toEqual(names.map((name) => `keys/${name}`).sort());
  });
});

describe('a read', () => {
  const body = randomBytes(300_000);
  let etag: string;

  beforeAll(async () => {
    etag = (await put('read/it', body)).ETag!;
  });

  it('of a key that is not there is NoSuchKey, and a HEAD of it a 404', async () => {
    expect(await nameOfError(get('read/not'))).toBe('NoSuchKey');
    expect(await exists('read/not')).toBe(false);
  });

  it('of the head says the same as a read of the object', async () => {
    const head = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: 'read/it' }));
    expect(head).toMatchObject({ ETag: etag, ContentLength: 300_000, AcceptRanges: 'bytes' });
  });

  it.each([
    ['bytes=0-99', 0, 100],
    ['bytes=1000-1999', 1000, 2000],
    ['bytes=299000-', 299_000, 300_000],
    ['bytes=-500', 299_500, 300_000],
    ['bytes=299999-999999', 299_999, 300_000],
    ['bytes=-999999', 0, 300_000],
  ])('of the range %s has just those bytes', async (range, start, end) => {
    const { bytes, answer } = await get('read/it', { Range: range });
    expect(bytes.equals(body.subarray(start, end))).toBe(true);
    expect(answer.ContentRange).toBe(`bytes ${start}-${end - 1}/300000`);
    expect(answer.$metadata.httpStatusCode).toBe(206);
  });

  it('of a range past the end is a 416', async () => {
    expect(await statusOf(get('read/it', { Range: 'bytes=300000-' }))).toBe(416);
  });

  it('with the entity tag in If-None-Match is a 304, with another the object', async () => {
    expect(await statusOf(get('read/it', { IfNoneMatch: etag }))).toBe(304);
    expect(await statusOf(get('read/it', { IfNoneMatch: '"other"' }))).toBe(200);
  });

  it('with another entity tag in If-Match is a 412', async () => {
    expect(await statusOf(get('read/it', { IfMatch: '"other"' }))).toBe(412);
    expect(await statusOf(get('read/it', { IfMatch: etag }))).toBe(200);
  });

  it('with If-Modified-Since is a 304 from when it was put', async () => {
    const { LastModified } = (await get('read/it')).answer;
    expect(await statusOf(get('read/it', { IfModifiedSince: LastModified! }))).toBe(304);
    expect(await statusOf(get('read/it', { IfModifiedSince: new Date(0) }))).toBe(200);
  });

  it('that is broken off leaves the connection pool usable', async () => {
    for (let i = 0; i < 5; i++) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: 'read/it' }));
      (Body as unknown as { destroy(): void }).destroy();
    }
    expect((await get('read/it')).bytes.equals(body)).toBe(true);
  });
});

describe('a delete', () => {
  it('takes the object away, and succeeds when there is none', async () => {
    await put('delete/it', 'x');
    for (let i = 0; i < 2; i++) {
      const answer = await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: 'delete/it' }));
      expect(answer.$metadata.httpStatusCode).toBe(204);
      expect(await exists('delete/it')).toBe(false);
    }
  });

  it('takes many at once', async () => {
    for (const i of [1, 2, 3]) await put(`delete/many/${i}`, 'x');
    const objects = [1, 2, 4].map((i) => ({ Key: `delete/many/${i}` }));
    const { Errors } = await client.send(
      new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects: objects } }),
    );
    expect(Errors ?? []).toEqual([]);
    expect(await keys('delete/many/')).toEqual(['delete/many/3']);
  });
});

describe('a listing', () => {
  const names = Array.from({ length: 25 }, (_, i) => `list/${String(i).padStart(2, '0')}`);

  beforeAll(async () => {
    for (const name of names) await put(name, name);
    await put('list0', 'after the prefix');
  });

  it('says key, size, entity tag and time of each', async () => {
    const { Contents } = await client.send(
      new ListObjectsCommand({ Bucket: bucket, Prefix: 'list/', MaxKeys: 1 }),
    );
    expect(Contents).toMatchObject([{ Key: 'list/00', Size: 7, ETag: `"${md5('list/00')}"` }]);
    expect(Contents![0]!.LastModified).toBeInstanceOf(Date);
  });

  it('has every key of the prefix once, in order, over its pages', async () => {
    expect(await keys('list/', 7)).toEqual(names);
  });

  it('goes on after a key that is not there (any more)', async () => {
    const page = await client.send(
      new ListObjectsCommand({ Bucket: bucket, Prefix: 'list/', Marker: 'list/225', MaxKeys: 2 }),
    );
    expect(page.Contents!.map(({ Key }) => Key)).toEqual(['list/23', 'list/24']);
    expect(page.IsTruncated).toBe(false);
  });

  it('of a prefix nobody has is empty', async () => {
    expect(await keys('list/none')).toEqual([]);
  });
});

describe('a multipart upload', () => {
  it('becomes an object when it is completed, and not before', async () => {
    const parts = [randomBytes(5 * MiB), randomBytes(1000)];
    const upload = await begin('multipart/whole', { ContentType: 'image/png', Metadata: { width: '1' } });
    const sent = await Promise.all(parts.map((part, i) => upload.part(i + 1, part)));
    expect(await exists('multipart/whole')).toBe(false);
    expect((await upload.listParts()).map(({ Size }) => Size)).toEqual([5 * MiB, 1000]);

    const { ETag } = await upload.complete(sent);
    const { bytes, answer } = await get('multipart/whole');
    expect(bytes.equals(Buffer.concat(parts))).toBe(true);
    expect(answer).toMatchObject({ ETag, ContentType: 'image/png', Metadata: { width: '1' } });
    const md5s = createHash('md5');
    for (const part of parts) md5s.update(createHash('md5').update(part).digest());
    expect(ETag).toBe(`"${md5s.digest('hex')}-2"`);
    expect(await uploads('multipart/whole')).toEqual([]);
  });

  it('takes the last of a part sent twice', async () => {
    const upload = await begin('multipart/twice');
    await upload.part(1, 'first');
    await upload.complete([await upload.part(1, 'second')]);
    expect((await get('multipart/twice')).bytes.toString()).toBe('second');
  });

  it('is listed until it is aborted, and then leaves nothing', async () => {
    const upload = await begin('multipart/aborted');
    await upload.part(1, randomBytes(1000));
    expect((await uploads('multipart/aborted')).map(({ UploadId }) => UploadId)).toEqual([upload.id]);
    await upload.abort();
    expect(await uploads('multipart/aborted')).toEqual([]);
    expect(await exists('multipart/aborted')).toBe(false);
  });

  it('takes no part and completes no more once it is aborted', async () => {
    const upload = await begin('multipart/over');
    const part = await upload.part(1, 'x');
    await upload.abort();
    expect(await nameOfError(upload.part(2, 'x'))).toBe('NoSuchUpload');
    expect(await nameOfError(upload.complete([part]))).toBe('NoSuchUpload');
    expect(await exists('multipart/over')).toBe(false);
  });

  it('is not completed with a part that was not sent, or sent otherwise', async () => {
    const upload = await begin('multipart/invalid');
    const part = await upload.part(1, 'x');
    expect(await nameOfError(upload.complete([{ ...part, PartNumber: 2 }]))).toBe('InvalidPart');
    expect(await nameOfError(upload.complete([{ ...part, ETag: `"${md5('other')}"` }]))).toBe('InvalidPart');
    expect(await exists('multipart/invalid')).toBe(false);
    await upload.abort();
  });

  it('is not completed with its parts out of order', async () => {
    const upload = await begin('multipart/order');
    const first = await upload.part(1, Buffer.alloc(5 * MiB));
    const second = await upload.part(2, 'x');
    expect(await nameOfError(upload.complete([second, first]))).toBe('InvalidPartOrder');
    await upload.abort();
  });

  it('is not completed with a part under 5 MiB that is not its last', async () => {
    const upload = await begin('multipart/small');
    const parts = [await upload.part(1, 'x'), await upload.part(2, 'x')];
    expect(await nameOfError(upload.complete(parts))).toBe('EntityTooSmall');
    await upload.abort();
  });

  it('with If-None-Match: * is not completed where there is an object', async () => {
    await put('multipart/once', 'first');
    const upload = await begin('multipart/once');
    const part = await upload.part(1, 'second');
    expect(await statusOf(upload.complete([part], { IfNoneMatch: '*' }))).toBe(412);
    expect((await get('multipart/once')).bytes.toString()).toBe('first');
    await upload.abort().catch(() => undefined);
  });
});

describe('a client', () => {
  it('without credentials is refused', async () => {
    const answer = await fetch(`${settings.endpoint}/${bucket}/put/whole`);
    await answer.arrayBuffer();
    expect(answer.status).toBe(403);
  });

  it('with a wrong secret is refused', async () => {
    const credentials = { ...settings.credentials, secretAccessKey: 'not-the-secret' };
    const stranger = new S3Client({ ...settings, credentials, forcePathStyle: true });
    const read = stranger.send(new GetObjectCommand({ Bucket: bucket, Key: 'put/whole' }));
    expect(await nameOfError(read)).toBe('SignatureDoesNotMatch');
    stranger.destroy();
  });
});

async function embed() {
  const dataDir = await mkdtemp(join(tmpdir(), 'naru-contract-'));
  const credentials = { accessKeyId: 'contract', secretAccessKey: 'contract-secret' };
  const server = await startObjectStore({ dataDir, ...credentials, region: 'kr-standard' });
  embedded = { server, dataDir };
  return { endpoint: server.url, region: 'kr-standard', credentials };
}

function given(url: string) {
  return {
    endpoint: url,
    region: process.env['CONTRACT_S3_REGION'] ?? 'us-east-1',
    credentials: {
      accessKeyId: process.env['CONTRACT_S3_ACCESS_KEY_ID'] ?? '',
      secretAccessKey: process.env['CONTRACT_S3_SECRET_ACCESS_KEY'] ?? '',
    },
  };
}

async function put(Key: string, Body: Buffer | string) {
  return await client.send(new PutObjectCommand({ Bucket: bucket, Key, Body }));
}

async function get(Key: string, options: object = {}) {
  const answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key, ...options }));
  return { bytes: Buffer.from(await answer.Body!.transformToByteArray()), answer };
}

async function exists(Key: string): Promise<boolean> {
  const status = await statusOf(client.send(new HeadObjectCommand({ Bucket: bucket, Key })));
  expect([200, 404]).toContain(status);
  return status === 200;
}

/** ListObjects v1: not every vendor has the second version. */
async function keys(Prefix: string, MaxKeys = 1000): Promise<string[]> {
  const found: string[] = [];
  for (let more = true; more;) {
    const page = await client.send(
      new ListObjectsCommand({ Bucket: bucket, Prefix, MaxKeys, Marker: found.at(-1) }),
    );
    found.push(...(page.Contents ?? []).map(({ Key }) => Key!));
    more = page.IsTruncated ?? false;
  }
  return found;
}

async function uploads(Prefix: string) {
  const { Uploads } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix }));
  return Uploads ?? [];
}

interface SentPart {
  readonly PartNumber: number;
  readonly ETag: string | undefined;
}

async function begin(Key: string, options: object = {}) {
  const { UploadId } = await client.send(
    new CreateMultipartUploadCommand({ Bucket: bucket, Key, ...options }),
  );
  const address = { Bucket: bucket, Key, UploadId };
  return {
    id: UploadId,
    part: async (PartNumber: number, Body: Buffer | string): Promise<SentPart> => {
      const { ETag } = await client.send(new UploadPartCommand({ ...address, PartNumber, Body }));
      return { PartNumber, ETag };
    },
    listParts: async () => (await client.send(new ListPartsCommand(address))).Parts ?? [],
    complete: (Parts: SentPart[], more: object = {}) =>
      client.send(new CompleteMultipartUploadCommand({ ...address, MultipartUpload: { Parts }, ...more })),
    abort: () => client.send(new AbortMultipartUploadCommand(address)),
  };
}

async function statusOf(answer: Promise<unknown>): Promise<number | undefined> {
  const { $metadata } = (await answer.then(
    (value) => (value as { answer?: unknown }).answer ?? value,
    (error: unknown) => error,
  )) as { $metadata: { httpStatusCode?: number } };
  return $metadata.httpStatusCode;
}

async function nameOfError(answer: Promise<unknown>): Promise<string> {
  return await answer.then(() => 'no error', nameOf);
}

function nameOf(error: unknown): string {
  return (error as Error).name;
}

function md5(text: string): string {
  return createHash('md5').update(text).digest('hex');
}

function ignore(): void {
  // Nothing to do.
}
