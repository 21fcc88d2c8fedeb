import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GetObjectCommand, PutObjectCommand, S3Client, UploadPartCommand } from '@aws-sdk/client-s3';
import { CreateBucketCommand, CreateMultipartUploadCommand, ListObjectsCommand } from '@aws-sdk/client-s3';
import { Readable } from 'node:stream';
import { credentials, region, until } from './embedded-store.js';

// The program itself, as `npm run build` makes it: a process is what gets killed.
const program = fileURLToPath(new URL('../../../dist/apps/object-store/src/main.js', import.meta.url));
const children = new Set<ChildProcess>();
let dataDir: string;

beforeAll(() => {
  if (!existsSync(program)) throw new Error('the object store is not built: npm run build');
});

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'naru-object-store-'));
});

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  children.clear();
  await rm(dataDir, { recursive: true });
});

it('killed in mid-body shows nothing of the object, and clears it away at the next start', async () => {
  const { child, client } = await start();
  await client.send(new CreateBucketCommand({ Bucket: 'bucket' }));
  await client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'whole', Body: 'kept' }));
  await client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'old', Body: 'kept as well' }));
  const { UploadId } = await client.send(
    new CreateMultipartUploadCommand({ Bucket: 'bucket', Key: 'parts' }),
  );
  const unfinished = [
    client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'half', ...half() })),
    client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'old', ...half() })),
    client.send(
      new UploadPartCommand({ Bucket: 'bucket', Key: 'parts', UploadId, PartNumber: 1, ...half() }),
    ),
  ].map((put) => expect(put).rejects.toThrow());
  await until(async () => (await temporaryFiles()).length === 3);
  child.kill('SIGKILL');
  await Promise.all(unfinished);
  client.destroy();

  const again = await start();
  expect(await temporaryFiles()).toEqual([]);
  const { Contents } = await again.client.send(new ListObjectsCommand({ Bucket: 'bucket' }));
  expect(Contents!.map(({ Key }) => Key)).toEqual(['old', 'whole']);
  const { Body } = await again.client.send(new GetObjectCommand({ Bucket: 'bucket', Key: 'old' }));
  expect(await Body!.transformToString()).toBe('kept as well');
  again.client.destroy();
});

it.each(['SIGINT', 'SIGTERM'] as const)(
  'stops at once on %s, in the middle of whatever it does',
  async (signal) => {
    const { child, client, port } = await start();
    await client.send(new CreateBucketCommand({ Bucket: 'bucket' }));
    const unfinished = client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'half', ...half() }));
    const ended = expect(unfinished).rejects.toThrow();
    const idle = connect(port, '127.0.0.1').on('error', () => undefined);
    await until(async () => (await temporaryFiles()).length === 1);
    child.kill(signal);
    expect(await once(child, 'exit')).toEqual([0, null]);
    await ended;
    expect(await temporaryFiles()).toEqual([]);
    idle.destroy();
    client.destroy();
  },
);

it('does not outlive the program that started it', async () => {
  const { child, client } = await start();
  child.disconnect();
  expect(await once(child, 'exit')).toEqual([0, null]);
  client.destroy();
});

it('does not clear away what another store on its port is writing', async () => {
  const { client, port } = await start();
  await client.send(new CreateBucketCommand({ Bucket: 'bucket' }));
  const unfinished = client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'half', ...half() }));
  const ended = expect(unfinished).rejects.toThrow();
  await until(async () => (await temporaryFiles()).length === 1);
  const { code, errors } = await fail({ OBJECT_STORE_PORT: String(port) });
  expect([code, errors]).toEqual([1, expect.stringContaining('EADDRINUSE')]);
  expect(await temporaryFiles()).toHaveLength(1);
  for (const child of children) child.kill('SIGKILL');
  await ended;
  client.destroy();
});

it('leaves a directory to the store that has it, and takes it from one that was killed', async () => {
  const first = await start();
  const { code, errors } = await fail({ OBJECT_STORE_PORT: '0' });
  expect([code, errors]).toEqual([1, expect.stringMatching(/is in use by .* process id \d+; give this one/)]);
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  first.client.destroy();
  const second = await start();
  second.client.destroy();
});

it('names every variable that is wrong, and no secret', async () => {
  const wrong = { OBJECT_STORE_PORT: '70000', S3_ACCESS_KEY_ID: '', S3_SECRET_ACCESS_KEY: 'short' };
  const { code, errors } = await fail(wrong);
  expect(code).toBe(1);
  for (const name of Object.keys(wrong)) expect(errors).toContain(name);
  expect(errors).not.toContain('short');
});

async function start() {
  const child = run({});
  const [{ url }] = (await once(child, 'message')) as [{ url: string }];
  const client = new S3Client({
    endpoint: url,
    region,
    credentials,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    maxAttempts: 1,
    logger: { debug: ignore, info: ignore, warn: ignore, error: ignore },
  });
  return { child, client, port: Number(new URL(url).port) };
}

async function fail(env: Record<string, string>): Promise<{ code: unknown; errors: string }> {
  const child = run(env);
  let errors = '';
  child.stderr?.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  const [code] = (await once(child, 'close')) as unknown[];
  return { code, errors };
}

function run(env: Record<string, string>): ChildProcess {
  const child = fork(program, {
    env: {
      OBJECT_STORE_DATA_DIR: dataDir,
      OBJECT_STORE_PORT: '0',
      S3_ACCESS_KEY_ID: credentials.accessKeyId,
      S3_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      ...env,
    },
    execArgv: [],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  children.add(child);
  return child;
}

/** A body that stops in the middle and does not end. */
function half() {
  const Body = new Readable({ read: () => undefined });
  Body.push(Buffer.alloc(300_000));
  return { Body, ContentLength: 600_000 };
}

async function temporaryFiles(): Promise<string[]> {
  return await readdir(join(dataDir, 'naru-temporary'));
}

function ignore(): void {
  // Nothing to do.
}
