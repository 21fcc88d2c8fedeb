import { createServer, request, type Server } from 'node:http';
import { type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { jest } from '@jest/globals';
import { freePort } from '../../local/src/free-ports.js';
import { type Diagnosis } from '../src/doctor/doctor.js';
import { environmentFor, run, runProcess, Store } from './tool.js';

// A doctor may take 30 s.
jest.setTimeout(60_000);

const EVERYTHING = [
  ...['reachable', 'clock', 'credentials', 'bucket', 'put', 'get', 'range', 'head', 'metadata', 'list'],
  ...['copy onto itself', 'multipart', 'abort', 'list uploads', 'delete'],
];

describe('a store that has what Naru needs', () => {
  let store: Store;

  beforeEach(async () => {
    store = await Store.start();
  });

  afterEach(async () => {
    await store.stop();
  });

  it('is told so, thing by thing, and finds nothing left in it', async () => {
    const { code, out, errors } = await run('doctor', [], store.environment);
    expect([code, errors]).toEqual([0, '']);
    for (const name of EVERYTHING) expect(out).toMatch(new RegExp(`^ +${name} +supported `, 'm'));
    expect(out).toMatch(/conditional put +supported .*the first wins/);
    expect(out).toMatch(/presigned PUT +supported/);
    expect(out).toMatch(/presigned POST +not supported/);
    expect(out).toContain('Everything that Naru needs is there.');
    expect(await store.keys()).toEqual([]);
    expect(await store.unfinished()).toEqual([]);
  });

  it('is told as JSON, without a secret', async () => {
    const { code, out } = await runProcess('doctor', ['--json'], store.environment);
    const diagnosis = JSON.parse(out) as Diagnosis;
    expect([code, diagnosis.isReady, diagnosis.left]).toEqual([0, true, []]);
    expect(diagnosis.endpoint).toBe(store.server.url);
    expect(out).not.toContain('test-secret');
  });

  it.each([
    [
      'credentials that are wrong',
      { S3_SECRET_ACCESS_KEY: 'wrong-secret' },
      'credentials',
      /SignatureDoesNot/,
    ],
    ['a region that is wrong', { S3_REGION: 'elsewhere' }, 'credentials', /AuthorizationHeaderMalformed/],
    ['a bucket that is not there', { S3_BUCKET: 'other' }, 'bucket', /NoSuchBucket/],
  ])('says of %s what is wrong', async (_, env, name, problem) => {
    const { code, out } = await run('doctor', ['--json'], { ...store.environment, ...env });
    const { isReady, probes } = JSON.parse(out) as Diagnosis;
    expect([code, isReady]).toEqual([1, false]);
    const first = probes.find(({ outcome }) => outcome !== 'yes')!;
    expect(first).toMatchObject({ name, outcome: 'no', detail: expect.stringMatching(problem) });
    expect(probes.find((probe) => probe.name === 'put')!.outcome).toBe('skipped');
    expect(out).not.toContain('wrong-secret');
  });

  it('is given its bucket for the time of the probes where S3_CREATE_BUCKET asks for it', async () => {
    const env = { ...store.environment, S3_BUCKET: 'fresh', S3_CREATE_BUCKET: 'true' };
    expect(await run('doctor', [], env)).toMatchObject({ code: 0 });
    expect(await store.buckets()).toEqual(['naru']);
  });

  it('lacks a thing that Naru needs: the exit code says so, and nothing stays behind', async () => {
    store.server.faults!.set({ operations: ['CompleteMultipartUpload'], error: { status: 501 } });
    const { code, out } = await run('doctor', [], store.environment);
    expect(code).toBe(1);
    expect(out).toMatch(/multipart +not supported .*Naru needs it/);
    expect(out).toMatch(/needs and was not found: multipart, abort, list uploads\./);
    expect(await store.keys()).toEqual([]);
    expect(await store.unfinished()).toEqual([]);
  });

  it('is in trouble: that says nothing of what it can', async () => {
    store.server.faults!.set({ operations: ['PutObject'], error: { status: 503 } });
    const { code, out } = await run('doctor', [], store.environment);
    expect(code).toBe(1);
    expect(out).toMatch(/put +failed .*SlowDown \(503\)/);
  });

  it('hangs: it is given up within 30 s', async () => {
    store.server.faults!.set({ hang: true });
    const started = Date.now();
    const { code, out } = await run('doctor', [], store.environment);
    expect(code).toBe(1);
    expect(out).toMatch(/credentials +failed .*no answer within 5 s/);
    expect(Date.now() - started).toBeLessThan(30_000);
  });

  it('finds nothing left after a Ctrl-C', async () => {
    store.server.faults!.set({ operations: ['CompleteMultipartUpload'], hang: true });
    const { code } = await runProcess('doctor', [], store.environment, (kill) => {
      const whenBegun = async (): Promise<void> => {
        while ((await store.unfinished()).length === 0) await sleep(50);
        kill('SIGINT');
      };
      void whenBegun();
    });
    expect(code).toBe(130);
    expect(await store.keys()).toEqual([]);
    expect(await store.unfinished()).toEqual([]);
  });
});

it('says what Naru does about a store as narrow as NAVER Cloud’s', async () => {
  const store = await Store.start({ vendor: 'ncp' });
  const { code, out } = await run('doctor', [], store.environment);
  expect(code).toBe(0);
  for (const name of EVERYTHING) expect(out).toMatch(new RegExp(`^ +${name} +supported `, 'm'));
  expect(out).toMatch(
    /conditional put +not supported +.*is ignored.*S3_CONDITIONAL_PUT=false.*the last wins/,
  );
  expect(out).toMatch(/conditional complete +not supported/);
  expect(out).toMatch(/list, version 2 +not supported +NotImplemented/);
  expect(out).toMatch(/checksums +not supported +AccessDenied/);
  expect(await store.keys()).toEqual([]);
  expect(await store.unfinished()).toEqual([]);
  await store.stop();
});

it('says that nobody listens', async () => {
  const { code, out } = await run('doctor', [], environmentFor(`http://127.0.0.1:${await freePort()}`));
  expect(code).toBe(1);
  expect(out).toMatch(/reachable +failed +nothing listens there/);
});

it('says that a server is no store, and that it is the setting which is wrong', async () => {
  const server = await serve(createServer((_, response) => response.end('<h1>It works</h1>')));
  const { code, errors } = await run('doctor', [], environmentFor(urlOf(server)));
  expect([code, errors]).toEqual([
    2,
    expect.stringMatching(/answers 200, but not as an S3 store does.*S3_END/),
  ]);
  server.closeAllConnections();
  server.close();
});

it('tells a clock that is wrong', async () => {
  const store = await Store.start();
  const target = new URL(store.server.url);
  const late = await serve(
    createServer((incoming, response) => {
      const { method, url, headers } = incoming;
      const outgoing = request({
        ...{ host: target.hostname, port: target.port },
        method,
        path: url,
        headers,
      });
      outgoing.on('response', (answer) => {
        const date = new Date(Date.now() - 600_000).toUTCString();
        response.writeHead(answer.statusCode!, { ...answer.headers, date });
        answer.pipe(response);
      });
      incoming.pipe(outgoing);
    }),
  );
  const { code, out } = await run('doctor', [], environmentFor(urlOf(late)));
  expect(out).toMatch(/clock +not supported +the store is (599|60\d) s behind/);
  expect(code).toBe(0);
  late.closeAllConnections();
  late.close();
  await store.stop();
});

it.each([
  [['--nonsense'], {}, /unknown option/],
  [['extra'], {}, /too many arguments/],
  [[], { S3_BUCKET: '' }, /S3_BUCKET is not set/],
])('refuses %j with %j', async (args, env, problem) => {
  const ended = await run('doctor', args, { ...environmentFor('http://127.0.0.1:1'), ...env });
  expect([ended.code, ended.errors]).toEqual([2, expect.stringMatching(problem)]);
});

async function serve(server: Server): Promise<Server> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

function urlOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
