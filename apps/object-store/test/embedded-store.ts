import { createHash, createHmac } from 'node:crypto';
import { readdir, rm, mkdtemp } from 'node:fs/promises';
import { request, type Agent, type ClientRequest, type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { S3Client } from '@aws-sdk/client-s3';
import { SignatureV4 } from '@smithy/signature-v4';
import {
  startObjectStore,
  type ObjectStoreServer,
  type ObjectStoreServerOptions,
} from '../src/object-store-server.js';

export const credentials = { accessKeyId: 'test-key', secretAccessKey: 'test-secret' };
export const region = 'us-east-1';

export interface RawRequest {
  readonly method?: string;
  /** Percent-encoded. */
  readonly path: string;
  readonly query?: Record<string, string>;
  readonly headers?: Record<string, string>;
  readonly body?: Buffer | string;
  /** `x-amz-content-sha256`; the hash of the body by default. */
  readonly payload?: string;
  readonly signedAt?: Date;
  readonly signWith?: { accessKeyId?: string; secretAccessKey?: string; region?: string };
  /** Sent, but not signed. */
  readonly unsignedHeaders?: Record<string, string>;
  readonly agent?: Agent;
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** The `Code` of an error. */
  readonly code: string | undefined;
}

/** An embedded store of its own for a suite: with the SDK's client, and requests put together by hand. */
export class EmbeddedStore {
  readonly client: S3Client;

  private constructor(
    readonly server: ObjectStoreServer,
    readonly dataDir: string,
  ) {
    this.client = new S3Client({
      endpoint: server.url,
      region,
      credentials,
      forcePathStyle: true,
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      maxAttempts: 1,
    });
  }

  /** With a bucket named `bucket`. */
  static async start(
    options: Pick<ObjectStoreServerOptions, 'faults' | 'vendor'> = {},
  ): Promise<EmbeddedStore> {
    const dataDir = await mkdtemp(join(tmpdir(), 'naru-object-store-'));
    const store = new EmbeddedStore(
      await startObjectStore({ dataDir, ...credentials, region, ...options }),
      dataDir,
    );
    await store.send({ method: 'PUT', path: '/bucket' });
    return store;
  }

  async stop(): Promise<void> {
    this.client.destroy();
    await this.server.close();
    await rm(this.dataDir, { recursive: true });
  }

  async sign(raw: RawRequest): Promise<Record<string, string>> {
    const signed = await signer(raw).sign(this.unsigned(raw), { signingDate: raw.signedAt ?? new Date() });
    return signed.headers;
  }

  /** The path and query of a URL that whoever holds it may use. */
  async presign(raw: RawRequest & { readonly expiresInS?: number }): Promise<string> {
    const unsigned = this.unsigned(raw);
    const headers = { host: unsigned.headers['host'] ?? '', ...raw.headers };
    const { query = {} } = await signer(raw).presign(
      { ...unsigned, headers: { ...headers, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' } },
      { expiresIn: raw.expiresInS ?? 60, signingDate: raw.signedAt ?? new Date() },
    );
    return `${raw.path}?${new URLSearchParams(query as Record<string, string>).toString().replaceAll('+', '%20')}`;
  }

  async send(raw: RawRequest): Promise<RawAnswer> {
    return await this.sendAs({ ...raw, headers: { ...(await this.sign(raw)), ...raw.unsignedHeaders } });
  }

  /** Just as it is: not signed. */
  async sendAs(raw: RawRequest): Promise<RawAnswer> {
    return await answerTo(this.open(raw), raw.body);
  }

  /** A request whose body is up to the caller. */
  open(raw: RawRequest): ClientRequest {
    const query = new URLSearchParams(raw.query).toString().replaceAll('+', '%20');
    return request({
      host: '127.0.0.1',
      port: this.server.port,
      method: raw.method ?? 'GET',
      path: query ? `${raw.path}?${query}` : raw.path,
      headers: raw.headers,
      agent: raw.agent ?? false,
    });
  }

  /** What is not whole yet. */
  async temporaryFiles(): Promise<string[]> {
    return await readdir(join(this.dataDir, 'naru-temporary'));
  }

  private unsigned(raw: RawRequest) {
    const body = raw.body ?? '';
    return {
      method: raw.method ?? 'GET',
      protocol: 'http:',
      hostname: '127.0.0.1',
      path: raw.path,
      query: raw.query ?? {},
      headers: {
        host: `127.0.0.1:${this.server.port}`,
        ...(raw.headers?.['transfer-encoding'] ? {} : { 'content-length': String(Buffer.byteLength(body)) }),
        'x-amz-content-sha256': raw.payload ?? createHash('sha256').update(body).digest('hex'),
        ...raw.headers,
      } as Record<string, string>,
    };
  }
}

export async function answerTo(sent: ClientRequest, body?: Buffer | string): Promise<RawAnswer> {
  return await new Promise((resolve, reject) => {
    sent.on('error', reject).on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject).on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const code = /<Code>(.*)<\/Code>/.exec(text)?.[1];
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text, code });
      });
    });
    if (body !== undefined) sent.end(body);
    else if (!sent.writableEnded && sent.getHeader('content-length') === undefined) sent.end();
    else if (sent.getHeader('content-length') === '0') sent.end();
  });
}

export async function until(holds: () => Promise<boolean> | boolean, withinMs = 5000): Promise<void> {
  for (const end = Date.now() + withinMs; !(await holds());) {
    if (Date.now() > end) throw new Error(`not so within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function signer({ signWith }: RawRequest): SignatureV4 {
  return new SignatureV4({
    credentials: { ...credentials, ...signWith },
    region: signWith?.region ?? region,
    service: 's3',
    sha256: Sha256,
    uriEscapePath: false,
  });
}

class Sha256 {
  private readonly hash;

  constructor(secret?: unknown) {
    this.hash = secret === undefined ? createHash('sha256') : createHmac('sha256', secret as string);
  }

  update(data: unknown): void {
    this.hash.update(data as string);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.hash.digest());
  }
}
