import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from '@aws-sdk/client-s3';
import { EmbeddedStore } from './embedded-store.js';

/** Each on its own line is a file name, a path or a byte that has broken stores. */
const HOSTILE = [
  '..',
  '../../etc/passwd',
  'a/../../../b',
  '/absolute',
  '//',
  'a//b',
  'trailing/',
  '.hidden',
  '.',
  'a',
  'A',
  'a/b',
  'a\\b',
  'CON',
  'nul.txt',
  'dot.',
  'space ',
  ' space',
  '%2e%2e%2f',
  'percent%',
  'line\nbreak',
  'carriage\rreturn',
  'tab\t',
  'nul\0byte',
  'control\u0001\u007f',
  '한글',
  '한글'.normalize('NFD'),
  '\u{1F600}',
  '\uFFFD',
  '<xml>&"\'',
  'key-a',
  'sha256-a',
  'k'.repeat(1024),
  `${'k'.repeat(1023)}l`,
  '한'.repeat(341),
  '/'.repeat(1024),
];

let store: EmbeddedStore;

beforeAll(async () => {
  store = await EmbeddedStore.start();
  for (const Key of HOSTILE) {
    await store.client.send(new PutObjectCommand({ Bucket: 'bucket', Key, Body: `of ${Key}` }));
  }
});

afterAll(async () => {
  await store.stop();
});

it('keeps every key apart from every other', async () => {
  for (const Key of HOSTILE) {
    const { Body } = await store.client.send(new GetObjectCommand({ Bucket: 'bucket', Key }));
    expect(await Body!.transformToString()).toBe(`of ${Key}`);
  }
});

it('has one plain file per object, in the folder of its bucket', async () => {
  const files = await readdir(store.dataDir, { recursive: true, withFileTypes: true });
  const objects = files.filter((file) => file.isFile() && file.name !== 'process-id');
  expect(objects).toHaveLength(HOSTILE.length);
  for (const { parentPath, name } of objects) {
    expect(parentPath).toBe(join(store.dataDir, 'buckets', 'bucket', 'objects'));
    expect(name).toMatch(/^[a-z0-9%_-]{1,255}$/);
  }
});

it('lists in the order of the UTF-8 bytes, page after page', async () => {
  const inOrder = [...HOSTILE].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const MaxKeys of [1, 7, 1000]) {
    const found: string[] = [];
    let ContinuationToken: string | undefined;
    do {
      const page = await store.client.send(
        new ListObjectsV2Command({ Bucket: 'bucket', MaxKeys, ContinuationToken, EncodingType: 'url' }),
      );
      found.push(...page.Contents!.map(({ Key }) => decodeURIComponent(Key!)));
      ContinuationToken = page.NextContinuationToken;
    } while (ContinuationToken);
    expect(found).toEqual(inOrder);
  }
});

it('finds every key by itself as a prefix', async () => {
  for (const Prefix of HOSTILE) {
    const { Contents } = await store.client.send(
      new ListObjectsCommand({ Bucket: 'bucket', Prefix, MaxKeys: 1, EncodingType: 'url' }),
    );
    expect(decodeURIComponent(Contents![0]!.Key!)).toBe(Prefix);
  }
});

it('refuses a key of more than 1,024 bytes', async () => {
  for (const key of ['k'.repeat(1025), '한'.repeat(342)]) {
    const answer = await store.send({ method: 'PUT', path: `/bucket/${encodeURIComponent(key)}` });
    expect(answer).toMatchObject({ status: 400, code: 'KeyTooLongError' });
  }
});

it.each(['/bucket/%ff', '/bucket/%', '/bucket/%c0%ae%c0%ae'])(
  'refuses what is not UTF-8: %s',
  async (path) => {
    expect(await store.sendAs({ path })).toMatchObject({ status: 400, code: 'InvalidURI' });
  },
);

it.each(['..', '.', '.bucket', 'Bucket', 'a', 'a..b', 'x'.repeat(64), 'buck\0et', '%2e%2e', '한글'])(
  'makes no bucket of the name %s, and finds none',
  async (name) => {
    const path = `/${encodeURIComponent(name)}`;
    expect(await store.send({ method: 'PUT', path })).toMatchObject({
      status: 400,
      code: 'InvalidBucketName',
    });
    expect(await store.send({ method: 'DELETE', path })).toMatchObject({ status: 404, code: 'NoSuchBucket' });
    expect(await store.send({ path: `${path}/key` })).toMatchObject({ status: 404, code: 'NoSuchBucket' });
    expect(await readdir(join(store.dataDir, 'buckets'))).toEqual(['bucket']);
  },
);

it('deletes just the one', async () => {
  for (const [index, Key] of HOSTILE.entries()) {
    await store.client.send(new DeleteObjectCommand({ Bucket: 'bucket', Key }));
    const left = await readdir(join(store.dataDir, 'buckets', 'bucket', 'objects'));
    expect(left).toHaveLength(HOSTILE.length - index - 1);
  }
});
