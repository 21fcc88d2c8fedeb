import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { credentials, EmbeddedStore, region } from './embedded-store.js';

const MiB = 1024 * 1024;
let store: EmbeddedStore;

beforeEach(async () => {
  store = await EmbeddedStore.start();
});

afterEach(async () => {
  await store.stop();
});

it('lists uploads by key, then by age, with a prefix and over pages', async () => {
  const begun: string[] = [];
  for (const key of ['b/2', 'a', 'b/1', 'b/2', 'c']) begun.push(`${key} ${await begin(key)}`);
  const inOrder = [1, 2, 0, 3, 4].map((index) => begun[index]);
  expect(await pages('', 1000)).toEqual(inOrder);
  for (const size of [1, 2, 3]) expect(await pages('', size)).toEqual(inOrder);
  expect(await pages('b/', 1)).toEqual(inOrder.slice(1, 4));
});

it('lists parts by number, over pages', async () => {
  const uploadId = await begin('key');
  for (const number of [10, 2, 1]) await putPart(uploadId, number, `part ${number}`);
  const found: (number | undefined)[] = [];
  for (let PartNumberMarker: string | undefined, more = true; more;) {
    const page = await store.client.send(
      new ListPartsCommand({
        Bucket: 'bucket',
        Key: 'key',
        UploadId: uploadId,
        MaxParts: 2,
        PartNumberMarker,
      }),
    );
    found.push(...page.Parts!.map(({ PartNumber }) => PartNumber));
    PartNumberMarker = page.NextPartNumberMarker;
    more = page.IsTruncated!;
  }
  expect(found).toEqual([1, 2, 10]);
});

it.each(['0', '10001', '-1', 'x', ''])('refuses the part number "%s"', async (partNumber) => {
  const query = { partNumber, uploadId: await begin('key') };
  expect(await store.send({ method: 'PUT', path: '/bucket/key', query })).toMatchObject({
    status: 400,
    code: 'InvalidArgument',
  });
});

it.each(['', '..', '../../objects', 'x'.repeat(32), '0'.repeat(32), 'head'])(
  'knows no upload by the id "%s"',
  async (uploadId) => {
    const answers = await Promise.all([
      store.send({ path: '/bucket/key', query: { uploadId } }),
      store.send({ method: 'PUT', path: '/bucket/key', query: { uploadId, partNumber: '1' } }),
      store.send({ method: 'DELETE', path: '/bucket/key', query: { uploadId } }),
      store.send({ method: 'POST', path: '/bucket/key', query: { uploadId }, body: completion([]) }),
    ]);
    const codes = answers.map(({ code }) => code);
    expect(codes).toEqual(['NoSuchUpload', 'NoSuchUpload', 'NoSuchUpload', 'MalformedXML']);
  },
);

it('does not take a part for another key', async () => {
  const query = { uploadId: await begin('key'), partNumber: '1' };
  expect(await store.send({ method: 'PUT', path: '/bucket/other', query })).toMatchObject({
    status: 404,
    code: 'NoSuchUpload',
  });
});

it.each([
  ['no XML', 'hello'],
  ['cut off', '<CompleteMultipartUpload><Part>'],
  ['of another kind', '<Delete/>'],
  ['without parts', '<CompleteMultipartUpload/>'],
  ['without a number', '<CompleteMultipartUpload><Part><ETag>x</ETag></Part></CompleteMultipartUpload>'],
  [
    'a billion laughs',
    '<!DOCTYPE a [<!ENTITY b "c">]><CompleteMultipartUpload>&b;</CompleteMultipartUpload>',
  ],
])('refuses to complete by what is %s', async (_, body) => {
  const query = { uploadId: await begin('key') };
  expect(await store.send({ method: 'POST', path: '/bucket/key', query, body })).toMatchObject({
    status: 400,
    code: 'MalformedXML',
  });
});

it('compares the checksums of the parts with those they were sent with', async () => {
  const client = new S3Client({ endpoint: store.server.url, region, credentials, forcePathStyle: true });
  // By default, the SDK sends a CRC32 with every part, and all of them once more to complete.
  const upload = new Upload({
    client,
    params: { Bucket: 'bucket', Key: 'key', Body: Buffer.alloc(6 * MiB, 'x') },
    partSize: 5 * MiB,
  });
  await upload.done();
  client.destroy();
  expect(await store.send({ method: 'HEAD', path: '/bucket/key' })).toMatchObject({ status: 200 });

  const uploadId = await begin('other');
  const etag = await putPart(uploadId, 1, 'hello', 'other');
  const body = completion([[1, `${etag}</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32><ETag>`]]);
  expect(
    await store.send({ method: 'POST', path: '/bucket/other', query: { uploadId }, body }),
  ).toMatchObject({
    status: 400,
    code: 'InvalidPart',
  });
});

it('is over by one of those who complete and abort it at once', async () => {
  for (let round = 0; round < 10; round++) {
    const uploadId = await begin('key');
    const etag = await putPart(uploadId, 1, Buffer.alloc(MiB));
    const query = { uploadId };
    const body = completion([[1, etag]]);
    const [completed, aborted] = await Promise.all([
      store.send({ method: 'POST', path: '/bucket/key', query, body }),
      store.send({ method: 'DELETE', path: '/bucket/key', query }),
    ]);
    expect([completed.status, aborted.status].sort()).toEqual(
      completed.status === 200 ? [200, 404] : [204, 404],
    );
    const { status } = await store.send({ method: 'HEAD', path: '/bucket/key' });
    expect(status).toBe(completed.status === 200 ? 200 : 404);
    await store.send({ method: 'DELETE', path: '/bucket/key' });
    await expectNothingLeft();
  }
});

it('takes the parts along that arrive while it is aborted', async () => {
  for (let round = 0; round < 10; round++) {
    const uploadId = await begin('key');
    const query = { uploadId };
    const parts = [1, 2, 3].map((number) =>
      store.send({
        method: 'PUT',
        path: '/bucket/key',
        query: { ...query, partNumber: String(number) },
        body: Buffer.alloc(MiB),
      }),
    );
    const aborted = await store.send({ method: 'DELETE', path: '/bucket/key', query });
    expect(aborted.status).toBe(204);
    for (const { status } of await Promise.all(parts)) expect([200, 404]).toContain(status);
    await expectNothingLeft();
  }
});

it('goes with its bucket', async () => {
  await putPart(await begin('key'), 1, 'x');
  expect(await store.send({ method: 'DELETE', path: '/bucket' })).toMatchObject({ status: 204 });
  expect(await readdir(join(store.dataDir, 'buckets'))).toEqual([]);
  expect(await store.temporaryFiles()).toEqual([]);
});

async function begin(Key: string): Promise<string> {
  const { UploadId } = await store.client.send(new CreateMultipartUploadCommand({ Bucket: 'bucket', Key }));
  return UploadId!;
}

async function putPart(
  uploadId: string,
  number: number,
  body: Buffer | string,
  key = 'key',
): Promise<string> {
  const query = { uploadId, partNumber: String(number) };
  const { status, headers } = await store.send({ method: 'PUT', path: `/bucket/${key}`, query, body });
  expect(status).toBe(200);
  return headers.etag!;
}

function completion(parts: [number: number, etag: string][]): string {
  const xml = parts.map(([n, etag]) => `<Part><PartNumber>${n}</PartNumber><ETag>${etag}</ETag></Part>`);
  return `<CompleteMultipartUpload>${xml.join('')}</CompleteMultipartUpload>`;
}

async function pages(Prefix: string, MaxUploads: number): Promise<string[]> {
  const found: string[] = [];
  for (let KeyMarker: string | undefined, UploadIdMarker: string | undefined, more = true; more;) {
    const page = await store.client.send(
      new ListMultipartUploadsCommand({ Bucket: 'bucket', Prefix, MaxUploads, KeyMarker, UploadIdMarker }),
    );
    found.push(...page.Uploads!.map(({ Key, UploadId }) => `${Key} ${UploadId}`));
    KeyMarker = page.NextKeyMarker;
    UploadIdMarker = page.NextUploadIdMarker;
    more = page.IsTruncated!;
  }
  return found;
}

async function expectNothingLeft(): Promise<void> {
  expect(await readdir(join(store.dataDir, 'buckets', 'bucket', 'uploads'))).toEqual([]);
  expect(await readdir(join(store.dataDir, 'buckets', 'bucket', 'objects'))).toEqual([]);
  expect(await store.temporaryFiles()).toEqual([]);
}
