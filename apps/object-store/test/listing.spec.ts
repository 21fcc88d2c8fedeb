import { link } from 'node:fs/promises';
import { join } from 'node:path';
import { ListBucketsCommand, ListObjectsCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import { nameOf } from '../src/storage/key-name.js';
import { EmbeddedStore } from './embedded-store.js';

const KEYS = ['a', 'b/1', 'b/2', 'b/c/3', 'b!', 'd/4', 'e'];
let store: EmbeddedStore;

beforeAll(async () => {
  store = await EmbeddedStore.start();
  for (const key of KEYS)
    await store.send({ method: 'PUT', path: `/bucket/${key.replace('!', '%21')}`, body: key });
});

afterAll(async () => {
  await store.stop();
});

describe('with a delimiter', () => {
  it.each([
    ['', ['a', 'b!', 'e'], ['b/', 'd/']],
    ['b/', ['b/1', 'b/2'], ['b/c/']],
    ['b', ['b!'], ['b/']],
    ['b/c/', ['b/c/3'], []],
    ['x', [], []],
  ])('what the prefix "%s" has in common counts as one', async (Prefix, keys, prefixes) => {
    const page = await store.client.send(
      new ListObjectsCommand({ Bucket: 'bucket', Prefix, Delimiter: '/' }),
    );
    expect(keysOf(page)).toEqual(keys);
    expect(prefixesOf(page)).toEqual(prefixes);
  });

  it.each([1, 2, 3])('pages of %i have every key and prefix once, in both versions', async (MaxKeys) => {
    const first: string[] = [];
    for (let Marker: string | undefined = ''; Marker !== undefined;) {
      const page: Page & { NextMarker?: string | undefined } = await store.client.send(
        new ListObjectsCommand({ Bucket: 'bucket', Delimiter: '/', MaxKeys, Marker }),
      );
      first.push(...keysOf(page), ...prefixesOf(page));
      Marker = page.NextMarker;
    }
    const second: string[] = [];
    for (let token: string | undefined, more = true; more; more = token !== undefined) {
      const page: Page & { NextContinuationToken?: string | undefined } = await store.client.send(
        new ListObjectsV2Command({ Bucket: 'bucket', Delimiter: '/', MaxKeys, ContinuationToken: token }),
      );
      second.push(...keysOf(page), ...prefixesOf(page));
      token = page.NextContinuationToken;
    }
    expect(first.sort()).toEqual(['a', 'b!', 'b/', 'd/', 'e']);
    expect(second.sort()).toEqual(first);
  });
});

describe('the second version', () => {
  it('starts after a key, there or not, and counts', async () => {
    const page = await store.client.send(new ListObjectsV2Command({ Bucket: 'bucket', StartAfter: 'b/10' }));
    expect(keysOf(page)).toEqual(['b/2', 'b/c/3', 'd/4', 'e']);
    expect([page.KeyCount, page.IsTruncated, page.NextContinuationToken]).toEqual([4, false, undefined]);
  });

  it('names the owner only if asked', async () => {
    for (const FetchOwner of [true, false]) {
      const { Contents } = await store.client.send(
        new ListObjectsV2Command({ Bucket: 'bucket', FetchOwner }),
      );
      expect(Contents![0]!.Owner !== undefined).toBe(FetchOwner);
    }
  });

  it('refuses a token that is not one of its own', async () => {
    const query = { 'list-type': '2', 'continuation-token': '!' };
    expect(await store.send({ path: '/bucket', query })).toMatchObject({
      status: 400,
      code: 'InvalidArgument',
    });
  });
});

it('of nothing is not truncated', async () => {
  const page = await store.client.send(new ListObjectsCommand({ Bucket: 'bucket', MaxKeys: 0 }));
  expect([keysOf(page), page.IsTruncated]).toEqual([[], false]);
});

it.each(['-1', 'x', '1.5', ''])('refuses max-keys=%s', async (maxKeys) => {
  const answer = await store.send({ path: '/bucket', query: { 'max-keys': maxKeys } });
  expect(answer).toMatchObject({ status: 400, code: 'InvalidArgument' });
});

it('names the buckets', async () => {
  await store.send({ method: 'PUT', path: '/another' });
  const { Buckets } = await store.client.send(new ListBucketsCommand({}));
  expect(Buckets!.map(({ Name }) => Name)).toEqual(['another', 'bucket']);
  expect(Math.abs(Date.now() - Buckets![0]!.CreationDate!.getTime())).toBeLessThan(60_000);
});

it('pages through 10,000 objects', async () => {
  await store.send({ method: 'PUT', path: '/many' });
  await store.send({ method: 'PUT', path: '/many/0' });
  const folder = join(store.dataDir, 'buckets', 'many', 'objects');
  for (let i = 1; i < 10_000; i++) await link(join(folder, nameOf('0')), join(folder, nameOf(String(i))));
  const found = new Set<string>();
  let marker: string | undefined;
  do {
    const { body } = await store.send({ path: '/many', query: marker ? { marker } : {} });
    const page = [...body.matchAll(/<Key>(.*?)<\/Key>/g)].map(([, key]) => key!);
    for (const key of page) found.add(key);
    marker = page.at(-1);
  } while (marker);
  expect(found.size).toBe(10_000);
}, 60_000);

interface Page {
  readonly Contents?: { Key?: string | undefined }[] | undefined;
  readonly CommonPrefixes?: { Prefix?: string | undefined }[] | undefined;
}

function keysOf(page: Page): string[] {
  return (page.Contents ?? []).map(({ Key }) => Key!);
}

function prefixesOf(page: Page): string[] {
  return (page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix!);
}
