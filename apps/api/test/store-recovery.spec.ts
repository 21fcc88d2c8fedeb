import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CreateBucketCommand, DeleteBucketCommand, ListObjectsCommand, S3Client } from '@aws-sdk/client-s3';
import { type FaultSettings } from '../../object-store/src/faults/faults.js';
import { type ObjectStoreServer, startObjectStore } from '../../object-store/src/object-store-server.js';
import { environmentFor, MiB, photoOf, postHead, Replica, smallPhoto, until } from './harness.js';
import { ReplicaProcess } from './replica-process.js';

const ACCESS_KEY = { accessKeyId: 'test', secretAccessKey: 'test-secret' };

/** An embedded store that can be broken, taken away and brought back, and the only bucket in it. */
class FragileStore {
  readonly name = 'photos';
  readonly region = 'us-east-1';
  readonly credentials = ACCESS_KEY;
  endpoint = '';
  readonly #client: S3Client;

  private constructor(
    private server: ObjectStoreServer,
    private readonly dataDir: string,
  ) {
    this.endpoint = server.url;
    this.#client = new S3Client({
      endpoint: server.url,
      region: this.region,
      credentials: ACCESS_KEY,
      forcePathStyle: true,
    });
  }

  static async start(): Promise<FragileStore> {
    const dataDir = await mkdtemp(join(tmpdir(), 'naru-fragile-'));
    const server = await startObjectStore({ dataDir, faults: true, ...ACCESS_KEY });
    const store = new FragileStore(server, dataDir);
    await store.makeBucket();
    return store;
  }

  set faults(settings: FaultSettings) {
    this.server.faults!.set(settings);
  }

  /** With other credentials, if they are given. */
  async restart(credentials: Partial<typeof ACCESS_KEY> = {}): Promise<void> {
    const { port } = this.server;
    await this.server.close();
    this.server = await startObjectStore({
      dataDir: this.dataDir,
      port,
      faults: true,
      ...ACCESS_KEY,
      ...credentials,
    });
  }

  async stop(): Promise<void> {
    await this.server.close();
  }

  async makeBucket(): Promise<void> {
    await this.#client.send(new CreateBucketCommand({ Bucket: this.name }));
  }

  async removeBucket(): Promise<void> {
    await this.#client.send(new DeleteBucketCommand({ Bucket: this.name }));
  }

  async keys(): Promise<string[]> {
    const { Contents = [] } = await this.#client.send(new ListObjectsCommand({ Bucket: this.name }));
    return Contents.map(({ Key }) => Key!);
  }

  async remove(): Promise<void> {
    this.#client.destroy();
    await this.server.close();
    await rm(this.dataDir, { recursive: true });
  }
}

/** Runs a test with a store and a replica of its own, so that several can run side by side. */
function alone(
  test: (store: FragileStore, replica: Replica) => Promise<void>,
  environment: NodeJS.ProcessEnv = {},
): () => Promise<void> {
  return async () => {
    const store = await FragileStore.start();
    const replica = await Replica.start(store, environment);
    try {
      await test(store, replica);
    } finally {
      await replica.close();
      await store.remove();
    }
  };
}

/** The clock of a program that is an hour ahead, until SIGUSR2 sets it right. */
const WRONG_CLOCK = `
  const { Date: Real } = globalThis;
  let aheadMs = 3_600_000;
  process.on('SIGUSR2', () => { aheadMs = 0; });
  globalThis.Date = class Date extends Real {
    constructor(...given) { super(...(given.length > 0 ? given : [Real.now() + aheadMs])); }
    static now() { return Real.now() + aheadMs; }
  };`;

const readiness = async (replica: Replica) => (await replica.http.get('/health/ready')).status;

interface Trouble {
  readonly name: string;
  readonly begin: (store: FragileStore) => void | Promise<void>;
  readonly mend: (store: FragileStore) => void | Promise<void>;
  /** As /health says it. */
  readonly says: RegExp;
}

const broken = (name: string, settings: FaultSettings, says: RegExp): Trouble => ({
  name,
  begin: (store) => {
    store.faults = settings;
  },
  mend: (store) => {
    store.faults = {};
  },
  says,
});

const TROUBLES: Trouble[] = [
  {
    name: 'is down',
    begin: (store) => store.stop(),
    mend: (store) => store.restart(),
    says: /can't be reached/,
  },
  broken('hangs', { hang: true }, /does not answer in time/),
  broken('answers 500', { error: { status: 500 } }, /answers 500/),
  broken('throttles', { error: { status: 503, code: 'SlowDown' } }, /answers 503|takes no more requests/),
  broken('breaks off', { cut: true }, /can't be reached, or broke off/),
  {
    name: 'refuses the credentials',
    begin: (store) => store.restart({ secretAccessKey: 'another' }),
    mend: (store) => store.restart(),
    says: /refuses the credentials/,
  },
  {
    name: 'has lost its bucket',
    begin: (store) => store.removeBucket(),
    mend: (store) => store.makeBucket(),
    says: /bucket does not exist/,
  },
];

describe('A replica whose store', () => {
  it.concurrent.each(TROUBLES)(
    '$name is alive but not ready, soon refuses uploads unread, and recovers by itself',
    async ({ begin, mend, says }) => {
      await alone(async (store, replica) => {
        await until(async () => (await readiness(replica)) === 200);
        await begin(store);
        await until(async () => (await readiness(replica)) === 503);
        const { body } = await replica.http.get('/health/ready').expect(503);
        expect(body.details.store.message).toMatch(says);
        await replica.http.get('/health/live').expect(200);

        // A body that never comes can't have been read.
        let refusal = '';
        await until(async () => {
          const connection = await replica.connect();
          connection.write(postHead({ 'Content-Length': 5 * MiB }));
          refusal = await connection.receive(/"requestId"/, 500).catch(() => '');
          connection.destroy();
          return refusal !== '';
        });
        expect(refusal).toMatch(/^HTTP\/1\.1 503 [\s\S]*Retry-After: [1-9][\s\S]*"code":"STORE_UNAVAILABLE"/);
        // Reads as well; and what isn't there can't be told from what can't be seen.
        for (const path of ['/images', `/images/${'0'.repeat(32)}`, `/images/${'0'.repeat(32)}/info`]) {
          const answer = await replica.http.get(path).expect(503);
          expect(answer.body.code).toBe('STORE_UNAVAILABLE');
        }
        const { text } = await replica.http.get('/metrics');
        expect(text).toMatch(/^naru_upload_memory_bytes 0$/m);
        expect(text).toMatch(/^naru_uploads_in_flight 0$/m);

        await mend(store);
        await until(async () => (await readiness(replica)) === 200);
        await replica.upload(await smallPhoto()).expect(201);
      })();
    },
  );

  it.concurrent(
    'fails one probe, or is silent for a moment, stays ready',
    alone(async (store, replica) => {
      const failed = async () =>
        Number(
          /_count{operation="check",outcome="unavailable"} (\d+)/.exec(
            (await replica.http.get('/metrics')).text,
          )?.[1] ?? 0,
        );
      await until(async () => (await readiness(replica)) === 200);
      const before = await failed();
      // Both tries of a probe.
      store.faults = { operations: ['HeadBucket'], error: { status: 500, count: 2 } };
      let seen = before;
      for (const end = Date.now() + 2_000; Date.now() < end; seen = await failed()) {
        await replica.http.get('/health/ready').expect(200);
      }
      expect(seen).toBe(before + 1);
      // Requests that hang go on hanging; the next ones are answered.
      store.faults = { operations: ['HeadBucket'], hang: true };
      await new Promise((resolve) => setTimeout(resolve, 1_100));
      store.faults = {};
      for (const end = Date.now() + 3_000; Date.now() < end;) {
        await replica.http.get('/health/ready').expect(200);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }),
  );

  it.concurrent(
    'takes one second for each call is used all the same, for large images too',
    alone(
      async (store, replica) => {
        store.faults = { latencyMs: 1_000 };
        // Creating it, three S3 parts one after the other, completing it: more than the budget of one call.
        await replica.upload(await photoOf(12 * MiB)).expect(201);
        await replica.http.get('/health/ready').expect(200);
      },
      { S3_BUDGET_MS: '4000', S3_PARTS_IN_FLIGHT: '1' },
    ),
  );

  it.concurrent(
    'hangs for uploads only is tried again, and given up when the budget is used up',
    alone(
      async (store, replica) => {
        store.faults = { operations: ['PutObject'], hang: true };
        const { body } = await replica.upload(await smallPhoto()).expect(503);
        expect(body.code).toBe('STORE_UNAVAILABLE');
        const { text } = await replica.http.get('/metrics');
        const seconds = Number(/_sum{operation="put",outcome="unavailable"} ([\d.]+)/.exec(text)?.[1]);
        // More than one try, which is over after 0.6 s; all ten would take 6 s.
        expect(seconds).toBeGreaterThan(1.4);
        expect(seconds).toBeLessThan(6);
        store.faults = {};
        const image = await smallPhoto();
        // On a busy machine a try may well take longer than 600 ms.
        await until(async () => (await replica.upload(image)).status === 201);
        await until(async () => (await store.keys()).length === 1);
      },
      { S3_BUDGET_MS: '1500', S3_REQUEST_TIMEOUT_MS: '600', S3_MAX_ATTEMPTS: '10' },
    ),
  );

  it.concurrent(
    'takes no object, though it answers otherwise, gets one upload a second to try, and the others are refused at once',
    alone(
      async (store, replica) => {
        const image = await smallPhoto();
        store.faults = { operations: ['PutObject'], hang: true };
        await Promise.all(Array.from({ length: 5 }, () => replica.upload(image).expect(503)));
        const began = performance.now();
        const tries = Array.from({ length: 10 }, () => replica.upload(image).expect(503));
        await Promise.any(tries);
        expect(performance.now() - began).toBeLessThan(1_000);
        const { text } = await Promise.all(tries).then(() => replica.http.get('/metrics'));
        const puts = Number(/_count{operation="put",outcome="unavailable"} (\d+)/.exec(text)?.[1]);
        expect(puts).toBeLessThan(5 + tries.length);
        store.faults = {};
        await until(async () => (await replica.upload(image)).status === 201);
        await Promise.all(Array.from({ length: 10 }, () => replica.upload(image).expect(201)));
      },
      { S3_BUDGET_MS: '3200', S3_REQUEST_TIMEOUT_MS: '3200' },
    ),
  );
});

it('A replica that was stopped for longer than its budget stores what it had in flight all the same', async () => {
  const store = await FragileStore.start();
  const replica = await ReplicaProcess.start({
    ...environmentFor(store),
    LOG_LEVEL: 'info',
    S3_BUDGET_MS: '2500',
  });
  try {
    await until(async () => (await replica.http.get('/health/ready')).status === 200);
    store.faults = { operations: ['PutObject'], latencyMs: 500 };
    const upload = replica.http
      .post('/images')
      .attach('images', await smallPhoto(), { filename: 'a.jpg' })
      .then((answer) => answer);
    await sleep(250);
    replica.signal('SIGSTOP');
    await sleep(3_000);
    replica.signal('SIGCONT');
    expect((await upload).status).toBe(201);
  } finally {
    await replica.stop();
    await store.remove();
  }
});

describe('The log', () => {
  let store: FragileStore;
  let program: ReplicaProcess;

  beforeAll(async () => {
    store = await FragileStore.start();
    program = await ReplicaProcess.start({
      ...environmentFor(store),
      LOG_LEVEL: 'info',
      NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(WRONG_CLOCK).replaceAll("'", '%27')}`,
    });
  }, 60_000);
  afterAll(async () => {
    await program.stop();
    await store.remove();
    expect(program.stdout).not.toContain(ACCESS_KEY.secretAccessKey);
  });

  const upload = async () =>
    program.http.post('/images').attach('images', await smallPhoto(), { filename: 'a.jpg' });
  const causeOf = (requestId: string) =>
    (program.lines.find((line) => line.requestId === requestId)?.['err'] as { cause?: { message: string } })
      .cause?.message;

  it('has nothing to say of a clock that is wrong, which is allowed for, nor of one that is set right', async () => {
    await until(async () => (await program.http.get('/health/ready')).status === 200);
    expect((await upload()).status).toBe(201);
    program.signal('SIGUSR2');
    // The SDK allows for a clock that turns wrong at once, for one that turns right with the next request.
    expect([201, 503]).toContain((await upload()).status);
    expect((await upload()).status).toBe(201);
    const first = program.lines.find(({ msg }) => msg === 'POST 201');
    expect(Date.parse(String(first?.['time'])) - Date.now()).toBeGreaterThan(3_000_000);
  });

  it.each<[string, FaultSettings, string]>([
    ['is full', { full: true }, 'the object store is full'],
    [
      'has another time that it does not tell',
      { operations: ['PutObject'], error: { status: 403, code: 'RequestTimeTooSkewed' } },
      "the object store's clock and that of this machine differ too much; set the one that is wrong",
    ],
    [
      'refuses the credentials',
      { operations: ['PutObject'], error: { status: 403, code: 'InvalidAccessKeyId' } },
      'the object store refuses the credentials, or them this bucket',
    ],
    [
      'asks for less',
      { operations: ['PutObject'], error: { status: 503, code: 'SlowDown' } },
      'the object store takes no more requests at the moment',
    ],
    [
      'has no such bucket',
      { operations: ['PutObject'], error: { status: 404, code: 'NoSuchBucket' } },
      'the bucket does not exist; make it, or set S3_CREATE_BUCKET=true',
    ],
  ])('names the cause when the store %s, and reading goes on', async (_name, faults, cause) => {
    store.faults = faults;
    const { status, body } = await upload();
    expect([status, body.code]).toEqual([503, 'STORE_UNAVAILABLE']);
    await until(() => program.lines.some(({ requestId }) => requestId === body.requestId));
    expect(causeOf(body.requestId as string)).toBe(cause);
    await program.http.get('/images').expect(200);
    store.faults = {};
    expect((await upload()).status).toBe(201);
  });

  it('tells when the store is away, why, and when it is back', async () => {
    await store.restart({ secretAccessKey: 'another' });
    await until(() => program.stdout.includes('uploads are refused unread'));
    await store.restart();
    await until(() => program.stdout.includes('the object store is ready'));
    const said = program.lines.filter(({ context }) => context === 'StoreWatch');
    expect(said.slice(-4)).toMatchObject([
      {
        level: 'warn',
        msg: 'the object store is not ready',
        reason: expect.stringMatching(/refuses the credentials/),
      },
      { level: 'warn', msg: 'the object store is away: uploads are refused unread' },
      { level: 'info', msg: 'the object store answers: uploads are taken again' },
      { level: 'info', msg: 'the object store is ready' },
    ]);
  });
});
