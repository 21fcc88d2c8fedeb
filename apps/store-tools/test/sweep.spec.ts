import { randomBytes } from 'node:crypto';
import { cp, readdir } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { type SweepResult } from '../src/sweep/sweep.js';
import { environmentFor, run, runProcess, Store } from './tool.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
// A busy machine takes its time.
jest.setTimeout(60_000);

const idOf = (digit: string) => digit.repeat(32);
const keyOf = (digit: string) => `images/${idOf(digit)}`;

let store: Store;

beforeEach(async () => {
  store = await Store.start();
});

afterEach(async () => {
  await store.stop();
});

async function sweep(...args: string[]) {
  const ended = await run('sweep', ['--json', ...args], store.environment);
  expect(ended.errors).toBe('');
  return { code: ended.code, ...(JSON.parse(ended.out) as SweepResult) };
}

it('aborts what is older than a day, and leaves live uploads and those of others alone', async () => {
  await store.begin(keyOf('a'), 25 * HOUR_MS);
  await store.begin(keyOf('b'), 23 * HOUR_MS);
  await store.begin(keyOf('c'));
  await store.begin('backups/db.tar', 25 * HOUR_MS);
  await store.begin('images/not-ours', 25 * HOUR_MS);
  await store.put(keyOf('a'));
  const { code, uploads, left } = await sweep();
  expect(uploads).toMatchObject([{ key: keyOf('a'), outcome: 'aborted' }]);
  expect([code, left]).toEqual([0, { young: 2, foreign: 2 }]);
  expect((await store.unfinished()).sort()).toEqual(
    [keyOf('b'), keyOf('c'), 'backups/db.tar', 'images/not-ours'].sort(),
  );
  expect(await store.keys()).toEqual([keyOf('a')]);

  expect((await sweep('--older-than', '22h')).uploads).toMatchObject([{ key: keyOf('b') }]);
});

it('only says what it would do with --dry-run', async () => {
  await store.begin(keyOf('a'), 2 * HOUR_MS);
  const dry = await runProcess('sweep', ['--older-than', '60m', '--dry-run'], store.environment);
  expect(dry).toMatchObject({ code: 0, out: expect.stringMatching(/^would abort +images\/a{32} /) });
  expect(await store.unfinished()).toEqual([keyOf('a')]);
  const wet = await run('sweep', ['--older-than', '60m'], store.environment);
  expect(wet).toMatchObject({ code: 0, out: expect.stringMatching(/^aborted +images\/a{32} /) });
  expect(wet.out).toContain('1 aborted, 0 already gone, 0 failed; 0 younger and 0 of others left alone');
  expect(await store.unfinished()).toEqual([]);
});

it('goes through every page', async () => {
  const id = await store.begin(keyOf('a'), 25 * HOUR_MS);
  const folder = uploadsFolder();
  // A page holds 1,000; as many requests would take the test a minute.
  await Promise.all(
    Array.from({ length: 1002 }, () => cp(join(folder, id), join(folder, newId()), { recursive: true })),
  );
  await store.begin(keyOf('b'), 25 * HOUR_MS);
  const { code, uploads } = await sweep();
  expect(code).toBe(0);
  expect(uploads).toHaveLength(1004);
  expect(uploads.every(({ outcome }) => outcome === 'aborted')).toBe(true);
  expect(await readdir(folder)).toEqual([]);
}, 120_000);

it('does not hinder another sweep, nor is hindered by it', async () => {
  const id = await store.begin(keyOf('a'), 25 * HOUR_MS);
  const folder = uploadsFolder();
  await Promise.all(
    Array.from({ length: 199 }, () => cp(join(folder, id), join(folder, newId()), { recursive: true })),
  );
  const sweeps = await Promise.all([sweep(), sweep()]);
  const uploads = sweeps.flatMap((result) => result.uploads);
  expect(sweeps.map(({ code }) => code)).toEqual([0, 0]);
  expect(uploads.filter(({ outcome }) => outcome === 'aborted')).toHaveLength(200);
  expect(uploads.every(({ outcome }) => outcome === 'aborted' || outcome === 'gone')).toBe(true);
  expect(await store.unfinished()).toEqual([]);
});

it('names what is no image of Naru’s, and deletes none of it', async () => {
  await store.put(keyOf('a'), { width: '640', height: '480' });
  await store.put(keyOf('b'));
  await store.put('images/notes.txt');
  await store.put('elsewhere/notes.txt');
  const byKey = await sweep();
  expect(byKey.orphans).toMatchObject([{ key: 'images/notes.txt', reason: 'not an image id' }]);
  expect(byKey.images).toBe(2);

  // What was put just now may be an upload in flight.
  expect((await sweep('--metadata')).orphans).toHaveLength(1);
  const late = await laterStore(14 * MINUTE_MS);
  const { code, out } = await run(
    'sweep',
    ['--json', '--metadata', '--older-than', '10m'],
    environmentFor(late.url),
  );
  const { orphans, images } = JSON.parse(out) as SweepResult;
  late.close();
  expect([code, images]).toEqual([0, 1]);
  expect(orphans.map(({ key, reason }) => [key, reason])).toEqual([
    [keyOf('b'), 'no metadata of Naru'],
    ['images/notes.txt', 'not an image id'],
  ]);
  expect(await store.keys()).toHaveLength(4);
});

it('goes by the clock of the store, not by its own', async () => {
  await store.begin(keyOf('a'));
  const late = await laterStore(14 * MINUTE_MS);
  const { out } = await run(
    'sweep',
    ['--json', '--dry-run', '--older-than', '10m'],
    environmentFor(late.url),
  );
  late.close();
  expect((JSON.parse(out) as SweepResult).uploads).toMatchObject([{ key: keyOf('a') }]);
});

it('says what it could not abort, goes on with the rest, and exits 1', async () => {
  await store.begin(keyOf('a'), 25 * HOUR_MS);
  await store.begin(keyOf('b'), 25 * HOUR_MS);
  store.server.faults!.set({
    operations: ['AbortMultipartUpload'],
    error: { status: 400, code: 'Odd', count: 1 },
  });
  const { code, uploads } = await sweep();
  expect(code).toBe(1);
  expect(uploads.map(({ outcome }) => outcome).sort()).toEqual(['aborted', 'failed']);
  expect(uploads.find(({ outcome }) => outcome === 'failed')!.error).toMatch(/Odd/);
  expect(await store.unfinished()).toHaveLength(1);
});

it.each([
  ['a store in trouble', { error: { status: 500 } }, {}, /InternalError/],
  ['wrong credentials', {}, { S3_SECRET_ACCESS_KEY: 'wrong-secret' }, /SignatureDoesNotMatch/],
  ['a bucket that is not there', {}, { S3_BUCKET: 'other' }, /NoSuchBucket/],
])('exits 1 with %s', async (_, faults, env, problem) => {
  store.server.faults!.set(faults);
  const { code, errors } = await run('sweep', [], { ...store.environment, ...env });
  expect([code, errors]).toEqual([1, expect.stringMatching(problem)]);
  expect(errors).not.toContain('wrong-secret');
});

it('exits 1 when nobody listens, and 2 when who listens is no store', async () => {
  const server = createServer((_, response) => response.end('hello'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  expect(await run('sweep', [], environmentFor(url))).toMatchObject({
    code: 2,
    errors: expect.stringContaining('S3_ENDPOINT has to be the address of its S3 API'),
  });
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  expect(await run('sweep', [], environmentFor(url))).toMatchObject({
    code: 1,
    errors: `${url}: nothing listens there\n`,
  });
});

it.each([
  [['--older-than', '9m'], {}, /Expected an age such as 30m, 24h or 7d, of 10m at least/],
  [['--older-than', '-1h'], {}, /Expected an age/],
  [['--older-than', '24'], {}, /Expected an age/],
  [['--older-than', '1h'], { UPLOAD_TIMEOUT_MS: '3600000' }, /twice that at least/],
  [['--force'], {}, /unknown option/],
  [[], { S3_BUCKET: '', S3_ACCESS_KEY_ID: '' }, /S3_BUCKET is not set/],
])('exits 2 with %j and %j', async (args, env, problem) => {
  await store.begin(keyOf('a'), 25 * HOUR_MS);
  const { code, errors } = await run('sweep', args, { ...store.environment, ...env });
  expect([code, errors]).toEqual([2, expect.stringMatching(problem)]);
  expect(await store.unfinished()).toHaveLength(1);
});

function uploadsFolder(): string {
  return join(store.dataDir, 'buckets', 'naru', 'uploads');
}

function newId(): string {
  return randomBytes(16).toString('hex');
}

/** The store as it answers when its clock is ahead of ours; 15 minutes are more than it lets pass. */
async function laterStore(aheadMs: number): Promise<{ url: string; close: () => void }> {
  const { hostname, port } = new URL(store.server.url);
  const server = createServer((incoming, response) => {
    const { method, url, headers } = incoming;
    const outgoing = request({ hostname, port, method, path: url, headers }, (answer) => {
      const date = new Date(Date.now() + aheadMs).toUTCString();
      response.writeHead(answer.statusCode!, { ...answer.headers, date });
      answer.pipe(response);
    });
    incoming.pipe(outgoing);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
