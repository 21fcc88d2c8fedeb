import { DeleteObjectCommand, GetObjectCommand } from '@aws-sdk/client-s3';
import type { FaultSettings } from '../src/faults/faults.js';
import { answerTo, EmbeddedStore, until } from './embedded-store.js';

let store: EmbeddedStore;

beforeEach(async () => {
  store = await EmbeddedStore.start({ faults: true });
});

afterEach(async () => {
  await store.stop();
});

async function flip(settings: FaultSettings | string, method = 'PUT') {
  const body = typeof settings === 'string' ? settings : JSON.stringify(settings);
  const response = await fetch(`${store.server.url}/-/faults`, { method, ...(method === 'PUT' && { body }) });
  return { status: response.status, body: (await response.json()) as FaultSettings & { error?: unknown } };
}

const put = (path = '/bucket/key') => store.send({ method: 'PUT', path, body: 'hello' });
const get = (path = '/bucket/key') => store.send({ path });

it('is well until it is told otherwise, and again when it is mended', async () => {
  expect(await flip({}, 'GET')).toEqual({ status: 200, body: {} });
  expect(await flip({ error: { status: 503 } })).toEqual({ status: 200, body: { error: { status: 503 } } });
  expect(await flip({}, 'GET')).toEqual({ status: 200, body: { error: { status: 503 } } });
  expect(await put()).toMatchObject({ status: 503, code: 'SlowDown' });
  expect(await flip({})).toEqual({ status: 200, body: {} });
  expect(await put()).toMatchObject({ status: 200 });
});

it('is told in-process as well', async () => {
  store.server.faults!.set({ error: { status: 500 } });
  expect(await get()).toMatchObject({ status: 500, code: 'InternalError' });
});

it('fails as many requests as it was told, then no more', async () => {
  await flip({ error: { status: 418, code: 'Teapot', count: 2 } });
  expect(await put()).toMatchObject({ status: 418, code: 'Teapot' });
  expect((await flip({}, 'GET')).body).toEqual({ error: { status: 418, code: 'Teapot', count: 1 } });
  expect(await put()).toMatchObject({ status: 418 });
  expect((await flip({}, 'GET')).body).toEqual({});
  expect(await put()).toMatchObject({ status: 200 });
});

it('fails about as large a share of the requests as it was told', async () => {
  await flip({ error: { status: 500, rate: 0.5 } });
  const answers = await Promise.all(Array.from({ length: 200 }, () => get('/bucket')));
  const failed = answers.filter(({ status }) => status === 500).length;
  // Outside of this by chance: less than once in 10 million runs.
  expect(failed).toBeGreaterThan(60);
  expect(failed).toBeLessThan(140);
});

it('breaks only the operations it was told', async () => {
  await put();
  await flip({ operations: ['PutObject', 'HeadBucket'], error: { status: 503 } });
  expect(await put()).toMatchObject({ status: 503 });
  expect(await store.send({ method: 'HEAD', path: '/bucket' })).toMatchObject({ status: 503, body: '' });
  expect(await get()).toMatchObject({ status: 200, body: 'hello' });
  expect(await get('/bucket')).toMatchObject({ status: 200 });
});

it('is slow', async () => {
  await flip({ latencyMs: 300 });
  const started = performance.now();
  expect(await put()).toMatchObject({ status: 200 });
  // A timer may be a millisecond early.
  expect(performance.now() - started).toBeGreaterThan(298);
});

it('hangs: takes a request and never answers, also when it is well again, until the client goes', async () => {
  await flip({ hang: true });
  const hung = store.open({
    method: 'PUT',
    path: '/bucket/key',
    headers: await store.sign({ method: 'PUT', path: '/bucket/key', body: 'hello' }),
  });
  let outcome = '';
  hung.on('response', () => (outcome = 'answer')).on('error', () => (outcome = 'error'));
  hung.end('hello');
  await flip({});
  expect(await put('/bucket/other')).toMatchObject({ status: 200 });
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(outcome).toBe('');
  hung.destroy();
  await until(() => outcome === 'error');
  expect(await get()).toMatchObject({ status: 404 });
});

it('cuts the connection in the middle of a body, and keeps nothing of it', async () => {
  await flip({ cut: true });
  const body = Buffer.alloc(10_000_000);
  const request = { method: 'PUT', path: '/bucket/key', body };
  const sent = store.open({ ...request, headers: await store.sign(request) });
  await expect(answerTo(sent, body)).rejects.toThrow(/ECONNRESET|EPIPE|socket hang up/);
  expect(sent.socket!.bytesWritten).toBeGreaterThanOrEqual(5_000_000);
  await expect(get()).rejects.toThrow('socket hang up');
  await flip({});
  expect(await get()).toMatchObject({ status: 404 });
  expect(await store.temporaryFiles()).toEqual([]);
});

it('is full: refuses what would take room, and still reads and deletes', async () => {
  const object = { Bucket: 'bucket', Key: 'key' };
  await put();
  await flip({ full: true });
  expect(await put('/bucket/other')).toMatchObject({ status: 507, code: 'XMinioStorageFull' });
  expect(await store.send({ method: 'POST', path: '/bucket/other', query: { uploads: '' } })).toMatchObject({
    status: 507,
  });
  const { Body } = await store.client.send(new GetObjectCommand(object));
  expect(await Body!.transformToString()).toBe('hello');
  await store.client.send(new DeleteObjectCommand(object));
});

it.each([
  ['not JSON', '{', /not JSON/],
  ['an unknown field', '{"latency": 5}', /latency/],
  ['an unknown operation', '{"operations": ["put"]}', /operations/],
  ['a latency below 0', '{"latencyMs": -1}', /latencyMs/],
  ['a status that is no error', '{"error": {"status": 200}}', /error\.status/],
  ['a rate above 1', '{"error": {"status": 500, "rate": 2}}', /error\.rate/],
  ['no object', '[]', /object/],
])('refuses %s, and stays as it was', async (_, settings, problem) => {
  await flip({ latencyMs: 1 });
  const { status, body } = await flip(settings);
  expect([status, body.error]).toEqual([400, expect.stringMatching(problem)]);
  expect((await flip({}, 'GET')).body).toEqual({ latencyMs: 1 });
});

it('has no faults unless it was started to have some', async () => {
  const sound = await EmbeddedStore.start();
  expect(sound.server.faults).toBeUndefined();
  const response = await fetch(`${sound.server.url}/-/faults`, { method: 'PUT', body: '{"hang":true}' });
  expect(response.status).toBe(403);
  await sound.stop();
});
