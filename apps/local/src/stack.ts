import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { relative, resolve } from 'node:path';
import { styleText } from 'node:util';
import { Child } from './child.js';
import { type Options } from './options.js';

const ROOT = resolve(import.meta.dirname, '../../../..');
const SAMPLE = resolve(ROOT, 'loadtest/images/hubble-900kB.jpg');

/** The programs that make up Naru on one machine: the embedded object store, and the API in front of it. */
export class Stack {
  readonly #store: Child | undefined;
  readonly #api: Child;
  readonly #url: string;

  constructor(private readonly options: Options) {
    this.#url = `http://localhost:${options.port}`;
    this.#store = options.store === undefined ? new Child('object store', 'object-store', false) : undefined;
    this.#api = new Child('API', 'api', true);
  }

  onExit(listener: (name: string) => void): void {
    for (const child of [this.#store, this.#api]) child?.onExit(listener);
  }

  /** Resolves when the API takes requests. */
  async start(): Promise<void> {
    // Asked before anything is started: a store that opens the same folder would clear away another's work.
    await assertFree(this.options.port);
    await this.#api.start({ ...(await this.#startStore()), ...this.#apiEnvironment() });
  }

  /** The API first: it may have uploads to finish, for which it needs the store. */
  async stop(): Promise<void> {
    await this.#api.stop();
    await this.#store?.stop();
  }

  /** What to tell the user: how to go on, and what keeps images from being uploaded yet. */
  async describe(): Promise<string> {
    const { data, store } = this.options;
    const sample = relative(process.env['INIT_CWD'] ?? ROOT, SAMPLE);
    const isOpen = authOf(process.env) === 'none';
    const key = isOpen ? '' : '-H "X-Api-Key: KEY" ';
    const images = `${data.replace(/\/*$/, '/')} (embedded object store)`;
    return [
      `${styleText('bold', 'Naru is ready at')} ${styleText('cyan', this.#url)}`,
      `  try it   curl ${key}-F "images=@${sample}" ${this.#url}/images`,
      `  docs     ${this.#url}/docs`,
      `  images   ${store ?? images}`,
      `  auth     ${isOpen ? 'none: anybody who reaches this port may upload' : 'uploading, deleting and listing need a key of API_KEYS'}`,
      ...(await this.#storeTrouble()),
      'Ctrl-C stops it.\n',
    ].join('\n');
  }

  async #storeTrouble(): Promise<string[]> {
    const response = await fetch(`${this.#url}/health/ready`);
    if (response.ok) return [];
    const { error } = (await response.json()) as { error: { store?: { message?: string } } };
    return [`  BUT      uploads fail until the store works: ${error.store?.message ?? 'see the log'}`];
  }

  /** Starts the embedded store, if there is to be one, with a key that lives as long as it; returns how to reach the store. */
  async #startStore(): Promise<NodeJS.ProcessEnv> {
    const { data, store } = this.options;
    if (this.#store === undefined) {
      return { S3_BUCKET: 'naru', S3_CREATE_BUCKET: 'true', ...process.env, S3_ENDPOINT: store };
    }
    const credentials = {
      S3_ACCESS_KEY_ID: 'naru',
      S3_SECRET_ACCESS_KEY: randomBytes(24).toString('base64url'),
      S3_REGION: 'local',
    };
    const ready = await this.#store.start({
      ...process.env,
      ...credentials,
      OBJECT_STORE_PORT: '0',
      OBJECT_STORE_DATA_DIR: resolve(ROOT, data),
    });
    const { url } = ready as { url: string };
    return { ...process.env, ...credentials, S3_BUCKET: 'naru', S3_ENDPOINT: url, S3_CREATE_BUCKET: 'true' };
  }

  #apiEnvironment(): NodeJS.ProcessEnv {
    return {
      PORT: String(this.options.port),
      AUTH: authOf(process.env),
      PUBLIC_URL: process.env['PUBLIC_URL'] ?? this.#url,
      LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'warn',
      // No balancer has to notice first.
      DRAIN_DELAY_MS: process.env['DRAIN_DELAY_MS'] ?? '0',
      // Who presses Ctrl-C does not want to wait for a client that has stalled.
      SHUTDOWN_TIMEOUT_MS: process.env['SHUTDOWN_TIMEOUT_MS'] ?? '2000',
      // Said in the README, once, is better than at every start.
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
    };
  }
}

/** Asked for by name, since nobody has a key yet who tries Naru; whoever has set some wants them used. */
function authOf({ AUTH, API_KEYS, API_KEYS_FILE }: NodeJS.ProcessEnv): string {
  return AUTH || (API_KEYS || API_KEYS_FILE ? 'api-key' : 'none');
}

async function assertFree(port: number): Promise<void> {
  const server = createServer();
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve).listen(port, () => {
      server.close(() => {
        resolve(undefined);
      });
    });
  });
  if (error?.code === 'EADDRINUSE') {
    throw new Error(`Port ${port} is in use; choose another one with: npm start -- --port ${port + 1}`);
  }
  if (error)
    throw new Error(
      `Port ${port} can't be used (${error.code ?? error.message}); choose another one with --port.`,
    );
}
