import { mkdtempSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { type NestExpressApplication } from '@nestjs/platform-express';
import sharp from 'sharp';
import supertest from 'supertest';
import {
  type ObjectStoreServer,
  type ObjectStoreServerOptions,
  startObjectStore,
} from '../../object-store/src/object-store-server.js';
import { createApp } from '../src/app.js';
import { readConfig } from '../src/config.js';

export const MiB = 1024 * 1024;
const CREDENTIALS = { accessKeyId: 'test', secretAccessKey: 'test-secret' };

/** A bucket of its own in the embedded store, or at the endpoint that E2E_S3_ENDPOINT names. */
export class Bucket {
  readonly name = `naru-e2e-${randomBytes(6).toString('hex')}`;
  #server: ObjectStoreServer | undefined;
  #dataDir: string | undefined;
  #client!: S3Client;
  endpoint!: string;
  credentials = CREDENTIALS;
  region = process.env['E2E_S3_REGION'] ?? 'us-east-1';

  /** `options` are of the embedded store; with some, it is the embedded one in any case. */
  static async open(options?: Pick<ObjectStoreServerOptions, 'vendor'>): Promise<Bucket> {
    const bucket = new Bucket();
    const { E2E_S3_ENDPOINT, E2E_S3_ACCESS_KEY_ID, E2E_S3_SECRET_ACCESS_KEY } = process.env;
    if (E2E_S3_ENDPOINT && !options) {
      bucket.endpoint = E2E_S3_ENDPOINT;
      bucket.credentials = {
        accessKeyId: E2E_S3_ACCESS_KEY_ID ?? '',
        secretAccessKey: E2E_S3_SECRET_ACCESS_KEY ?? '',
      };
    } else {
      bucket.#dataDir = mkdtempSync(join(tmpdir(), 'naru-e2e-'));
      bucket.#server = await startObjectStore({ dataDir: bucket.#dataDir, ...CREDENTIALS, ...options });
      bucket.endpoint = bucket.#server.url;
    }
    bucket.#client = new S3Client({
      endpoint: bucket.endpoint,
      region: bucket.region,
      credentials: bucket.credentials,
      forcePathStyle: true,
      requestChecksumCalculation: 'WHEN_REQUIRED',
    });
    await bucket.#client.send(new CreateBucketCommand({ Bucket: bucket.name }));
    return bucket;
  }

  async keys(): Promise<string[]> {
    const { Contents = [] } = await this.#client.send(new ListObjectsCommand({ Bucket: this.name }));
    return Contents.map(({ Key }) => Key!);
  }

  /** Keys of multipart uploads that were neither completed nor aborted. */
  async unfinished(): Promise<string[]> {
    return (await this.#unfinishedUploads()).map(({ Key }) => Key!);
  }

  async empty(): Promise<void> {
    for (const Key of await this.keys()) {
      await this.#client.send(new DeleteObjectCommand({ Bucket: this.name, Key }));
    }
    for (const { Key, UploadId } of await this.#unfinishedUploads()) {
      await this.#client.send(new AbortMultipartUploadCommand({ Bucket: this.name, Key, UploadId }));
    }
  }

  async close(): Promise<void> {
    await this.empty();
    await this.#client.send(new DeleteBucketCommand({ Bucket: this.name }));
    this.#client.destroy();
    await this.#server?.close();
    if (this.#dataDir) await rm(this.#dataDir, { recursive: true });
  }

  async #unfinishedUploads() {
    const { Uploads = [] } = await this.#client.send(new ListMultipartUploadsCommand({ Bucket: this.name }));
    return Uploads;
  }
}

/** One replica in this process, over a bucket. */
export class Replica {
  private constructor(
    readonly app: NestExpressApplication,
    readonly port: number,
  ) {}

  static async start(bucket: BucketAddress, environment: NodeJS.ProcessEnv = {}): Promise<Replica> {
    const app = await createApp(readConfig({ ...environmentFor(bucket), ...environment }));
    await app.listen(0, '127.0.0.1');
    return new Replica(app, (app.getHttpServer().address() as AddressInfo).port);
  }

  get http() {
    return supertest(`http://127.0.0.1:${this.port}`);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** POSTs files as form parts named "images". */
  upload(...files: (Buffer | { bytes: Buffer; name: string; type?: string })[]) {
    let request = this.http.post('/images');
    files.forEach((file, index) => {
      const { bytes, name, type } = Buffer.isBuffer(file)
        ? { bytes: file, name: `photo-${index}.jpg`, type: undefined }
        : file;
      request = request.attach('images', bytes, { filename: name, ...(type && { contentType: type }) });
    });
    return request;
  }

  connect(): Promise<RawConnection> {
    return RawConnection.open(this.port);
  }

  async close(): Promise<void> {
    this.app.getHttpServer().closeAllConnections();
    await this.app.close();
  }
}

/** What a replica has to know of a bucket. */
export type BucketAddress = Pick<Bucket, 'name' | 'endpoint' | 'region' | 'credentials'>;

export function environmentFor(bucket: BucketAddress): NodeJS.ProcessEnv {
  return {
    AUTH: 'none',
    LOG_LEVEL: 'silent',
    REPLICA_ID: 'test-replica',
    S3_ENDPOINT: bucket.endpoint,
    S3_REGION: bucket.region,
    S3_BUCKET: bucket.name,
    S3_ACCESS_KEY_ID: bucket.credentials.accessKeyId,
    S3_SECRET_ACCESS_KEY: bucket.credentials.secretAccessKey,
  };
}

/** A client that writes exactly the bytes it is told to, for what no HTTP library would send. */
export class RawConnection {
  #received = Buffer.alloc(0);
  readonly closed: Promise<unknown>;

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
    });
    socket.on('error', () => undefined);
    this.closed = once(socket, 'close');
  }

  static async open(port: number): Promise<RawConnection> {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new RawConnection(socket);
  }

  get text(): string {
    return this.#received.toString('latin1');
  }

  write(bytes: Buffer | string): void {
    this.socket.write(bytes);
  }

  /** Resolves with all that was received once it matches; rejects when the connection closes before. */
  async receive(pattern: RegExp, timeoutMs = 10_000): Promise<string> {
    await until(() => pattern.test(this.text) || this.socket.destroyed, timeoutMs);
    if (!pattern.test(this.text)) throw new Error(`closed after ${JSON.stringify(this.text.slice(0, 500))}`);
    return this.text;
  }

  destroy(): void {
    this.socket.resetAndDestroy();
  }
}

export const BOUNDARY = 'a-boundary';

/** A multipart body; `headers` replaces the usual head of a form part. */
export function multipart(
  ...parts: { bytes: Buffer | string; name?: string; filename?: string; headers?: string }[]
): Buffer {
  const pieces = parts.flatMap(({ bytes, name = 'images', filename = 'photo.jpg', headers }) => [
    `--${BOUNDARY}\r\n`,
    headers ??
      `Content-Disposition: form-data; name="${name}"; filename="${filename}"\r\nContent-Type: image/jpeg`,
    '\r\n\r\n',
    bytes,
    '\r\n',
  ]);
  return Buffer.concat([...pieces, `--${BOUNDARY}--\r\n`].map((piece) => Buffer.from(piece as string)));
}

export function postHead(headers: Record<string, string | number> = {}): string {
  const lines = Object.entries({
    Host: 'naru.test',
    'Content-Type': `multipart/form-data; boundary=${BOUNDARY}`,
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST /images HTTP/1.1\r\n${lines.join('')}\r\n`;
}

/** A real photograph: 900 kB, 1,733 × 1,511 or so. */
export const photo = (): Promise<Buffer> =>
  readFile(join(import.meta.dirname, '../../../loadtest/images/hubble-900kB.jpg'));

/** A small photograph, for what isn't about size. */
export async function smallPhoto(width = 64): Promise<Buffer> {
  return sharp(await photo())
    .resize(width)
    .jpeg()
    .toBuffer();
}

/** A photograph of exactly so many bytes: cameras put what they like behind a JPEG's end. */
export async function photoOf(bytes: number): Promise<Buffer> {
  const image = await photo();
  return Buffer.concat([image, randomBytes(bytes - image.length)]);
}

export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
