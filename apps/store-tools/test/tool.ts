import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  ListBucketsCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { doctor } from '../src/doctor/command.js';
import { type Program, run as runProgram } from '../src/program.js';
import { sweep } from '../src/sweep/command.js';
import {
  type ObjectStoreServer,
  type ObjectStoreServerOptions,
  startObjectStore,
} from '../../object-store/src/object-store-server.js';

const CREDENTIALS = { accessKeyId: 'test', secretAccessKey: 'test-secret' };
const Bucket = 'naru';

/** An embedded store with a bucket, and the environment that leads to it. */
export class Store {
  readonly client: S3Client;

  private constructor(
    readonly server: ObjectStoreServer,
    readonly dataDir: string,
  ) {
    this.client = newClient(server.url);
  }

  static async start(options: Pick<ObjectStoreServerOptions, 'vendor'> = {}): Promise<Store> {
    const dataDir = await mkdtemp(join(tmpdir(), 'naru-store-tools-'));
    const store = new Store(
      await startObjectStore({ dataDir, ...CREDENTIALS, faults: true, ...options }),
      dataDir,
    );
    await store.client.send(new CreateBucketCommand({ Bucket }));
    return store;
  }

  get environment(): NodeJS.ProcessEnv {
    return environmentFor(this.server.url);
  }

  async put(Key: string, Metadata: Record<string, string> = {}): Promise<void> {
    await this.client.send(new PutObjectCommand({ Bucket, Key, Body: 'bytes', Metadata }));
  }

  /** An upload that nobody finishes, with an S3 part; begun so long ago. */
  async begin(Key: string, ageMs = 0): Promise<string> {
    // One client for the one request: it would set its clock by the answer.
    const client = newClient(this.server.url);
    const { now } = Date;
    Date.now = () => now() - ageMs;
    const created = client.send(new CreateMultipartUploadCommand({ Bucket, Key }));
    const { UploadId } = await created.finally(() => (Date.now = now));
    client.destroy();
    await this.client.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber: 1, Body: 'part' }));
    return UploadId!;
  }

  async keys(): Promise<string[]> {
    const { Contents = [] } = await this.client.send(new ListObjectsCommand({ Bucket }));
    return Contents.map(({ Key }) => Key!);
  }

  async unfinished(): Promise<string[]> {
    const { Uploads = [] } = await this.client.send(new ListMultipartUploadsCommand({ Bucket }));
    return Uploads.map(({ Key }) => Key!);
  }

  async buckets(): Promise<string[]> {
    const { Buckets = [] } = await this.client.send(new ListBucketsCommand({}));
    return Buckets.map(({ Name }) => Name!);
  }

  async stop(): Promise<void> {
    this.server.faults?.set({});
    this.client.destroy();
    await this.server.close();
    await rm(this.dataDir, { recursive: true });
  }
}

export function environmentFor(endpoint: string): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    S3_ENDPOINT: endpoint,
    S3_BUCKET: Bucket,
    S3_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
    S3_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
  };
}

function newClient(endpoint: string): S3Client {
  return new S3Client({
    endpoint,
    region: 'us-east-1',
    credentials: CREDENTIALS,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
  });
}

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly errors: string;
}

const PROGRAMS: Record<'doctor' | 'sweep', Program> = { doctor, sweep };

export async function run(
  tool: 'doctor' | 'sweep',
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Ended> {
  let out = '';
  let errors = '';
  const code = await runProgram(PROGRAMS[tool], {
    args,
    env,
    signal: new AbortController().signal,
    print: (text) => (out += text),
    complain: (text) => (errors += text),
  });
  return { code, out, errors };
}

/** The program as a process, as it was built; `onStart` is given what stops it. */
export async function runProcess(
  tool: 'doctor' | 'sweep',
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  onStart: (kill: (signal: NodeJS.Signals) => void) => void = () => undefined,
): Promise<Ended> {
  const program = join(import.meta.dirname, '../../../dist/apps/store-tools/src', tool, 'main.js');
  if (!existsSync(program)) throw new Error('the store tools are not built: npm run build');
  const child = spawn(process.execPath, [program, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  onStart((signal) => child.kill(signal));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, out, errors };
}
