import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { styleText } from 'node:util';
import { assertNginx, Balancer } from './balancer.js';
import { Child } from './child.js';
import { Control } from './control.js';
import { dataFolder, makeFolder, type Options } from './options.js';
import { Replicas } from './replicas.js';
import { Tally } from './tally.js';

const ROOT = resolve(import.meta.dirname, '../../../..');
const SAMPLE = resolve(ROOT, 'loadtest/images/hubble-900kB.jpg');

/** The programs that make up Naru on one machine: the embedded object store, and the API in front of it. */
export class Stack {
  readonly #folder: string;
  readonly #url: string;
  readonly #store: Child | undefined;
  /** Without --replicas. */
  readonly #api: Child;
  /** With --replicas. */
  #replicas: Replicas | undefined;
  #control: Control | undefined;
  readonly #listeners: ((name: string) => void)[] = [];

  constructor(private readonly options: Options) {
    this.#folder = dataFolder(options.data);
    this.#url = urlOf(options);
    this.#store =
      options.store === undefined ? new Child('The object store', 'object-store', false) : undefined;
    this.#api = new Child('The API', 'api', true);
    for (const child of [this.#store, this.#api]) child?.onExit(this.#ended);
  }

  /** Hears of what can't be done without. */
  onExit(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Resolves when requests are taken. */
  async start(): Promise<void> {
    // Asked before anything is started: a store that opens the same folder would clear away another's work.
    await assertFree(this.options);
    if (this.options.replicas === undefined) await this.#startOne();
    else await this.#startReplicas(this.options.replicas);
  }

  /**
   * What takes requests first: it may have uploads to finish, for which it needs the store. Resolves with whether all of
   * them were.
   */
  async stop(): Promise<boolean> {
    this.#control?.close();
    const ended = [(await this.#replicas?.stop()) ?? true, await this.#api.stop()];
    return [...ended, (await this.#store?.stop()) ?? true].every(Boolean);
  }

  /** What to tell the user: how to go on, and what keeps images from being uploaded yet. */
  async describe(): Promise<string> {
    const { data, store, replicas } = this.options;
    const sample = relative(process.env['INIT_CWD'] ?? ROOT, SAMPLE);
    const isOpen = authOf(process.env) === 'none';
    const curl = `curl ${isSelfSigned(process.env) && replicas ? '-k ' : ''}${isOpen ? '' : '-H "X-Api-Key: KEY" '}`;
    const images = `${data.replace(/\/*$/, '/')} (embedded object store)`;
    return [
      `${styleText('bold', 'Naru is ready at')} ${styleText('cyan', this.#url)}`,
      `  try it   ${curl}-F "images=@${sample}" ${this.#url}/images`,
      `  docs     ${this.#url}/docs`,
      `  images   ${store ?? images}`,
      ...(replicas === undefined ? [] : [`  replicas ${describeReplicas(replicas, this.options)}`]),
      `  auth     ${isOpen ? 'none: anybody who reaches this port may upload' : 'uploading, deleting and listing need a key of API_KEYS'}`,
      ...(await this.#storeTrouble()),
      'Ctrl-C stops it.\n',
    ].join('\n');
  }

  readonly #ended = (name: string): void => {
    for (const listener of this.#listeners) listener(name);
  };

  async #startOne(): Promise<void> {
    if (this.#store) makeFolder(this.#folder);
    // It only tells `npm run scale` that there is nothing to scale.
    this.#control = await Control.open(this.#folder, () => {
      throw new Error(
        'It was started without --replicas, so it has no balancer. Start it with: npm start -- --replicas 3',
      );
    }).catch(() => undefined);
    await this.#api.start({
      ...(await this.#startStore()),
      ...this.#apiEnvironment(),
      PORT: String(this.options.port),
    });
  }

  async #startReplicas(count: number): Promise<void> {
    assertNginx();
    this.#control = await Control.open(this.#folder, async (count) => {
      if (this.#replicas === undefined) throw new Error('It is still starting; try again when it is ready.');
      return this.#replicas.scale(count);
    });
    const tally = new Tally(
      isL4(process.env) ? 'connections' : 'requests',
      (address) => this.#replicas?.idOf(address),
      () => this.#replicas?.ids ?? [],
    );
    const balancer = new Balancer(join(this.#folder, 'nginx'), {
      ...this.#balancerEnvironment(),
      LB_ACCESS_LOG: process.env['LB_ACCESS_LOG'] || (await tally.open()),
    });
    balancer.onExit(this.#ended);
    await balancer.check();
    this.#replicas = new Replicas(balancer, {
      ...(await this.#startStore()),
      ...this.#apiEnvironment(),
      ...this.#replicaEnvironment(),
    });
    await this.#replicas.start(count);
    tally.start();
  }

  async #storeTrouble(): Promise<string[]> {
    // Asked of a replica: the balancer may not tell us, or only by a certificate that we don't know.
    const response = await fetch(`${this.#replicas?.url ?? this.#url}/health/ready`);
    if (response.ok) return [];
    const { error } = (await response.json()) as { error: { store?: { message?: string } } };
    return [`  BUT      uploads fail until the store works: ${error.store?.message ?? 'see the log'}`];
  }

  /** Starts the embedded store, if there is to be one, with a key that lives as long as it; returns how to reach the store. */
  async #startStore(): Promise<NodeJS.ProcessEnv> {
    const { store } = this.options;
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
      OBJECT_STORE_DATA_DIR: this.#folder,
    });
    const { url } = ready as { url: string };
    return { ...process.env, ...credentials, S3_BUCKET: 'naru', S3_ENDPOINT: url, S3_CREATE_BUCKET: 'true' };
  }

  #apiEnvironment(): NodeJS.ProcessEnv {
    return {
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

  /** What is different behind nginx, which upon Ctrl-C is the one that doesn't wait for clients. */
  #replicaEnvironment(): NodeJS.ProcessEnv {
    return {
      // For nginx to take a list without a replica that is removed, or that somebody else ends.
      DRAIN_DELAY_MS: process.env['DRAIN_DELAY_MS'] ?? '2000',
      // A replica that is removed finishes what it has: longer than UPLOAD_TIMEOUT_MS is by default.
      SHUTDOWN_TIMEOUT_MS: process.env['SHUTDOWN_TIMEOUT_MS'] ?? '125000',
      PROXY_PROTOCOL: String(isL4(process.env)),
    };
  }

  #balancerEnvironment(): NodeJS.ProcessEnv {
    const { port, algorithm } = this.options;
    return {
      // Nobody but root is asked for it; whoever starts us may read what nginx needs.
      LB_USER: 'root',
      // Before nginx 1.27.4 a reload loses what is just coming in on a kept connection; a new one costs nothing here.
      LB_CLIENT_KEEPALIVE: '0',
      // There is nothing in front that would forward 443.
      LB_TLS_PUBLIC_PORT: tlsPort(process.env),
      ...process.env,
      LB_PORT: String(port),
      ...(algorithm !== undefined && { LB_ALGORITHM: algorithm }),
    };
  }
}

function describeReplicas(count: number, { algorithm, data }: Options): string {
  const chosen = algorithm ?? (process.env['LB_ALGORITHM'] || 'round_robin');
  const folder = data === '.naru' ? '' : ` --data ${data}`;
  return `${count} behind nginx, ${chosen}; more or fewer: npm run scale -- ${count + 1}${folder}`;
}

function urlOf({ port, replicas }: Options): string {
  return replicas !== undefined && process.env['LB_TLS'] === 'on'
    ? `https://localhost:${tlsPort(process.env)}`
    : `http://localhost:${port}`;
}

function tlsPort({ LB_TLS_PORT }: NodeJS.ProcessEnv): string {
  return LB_TLS_PORT || '8443';
}

function isSelfSigned({ LB_TLS, LB_TLS_CERTIFICATE }: NodeJS.ProcessEnv): boolean {
  return LB_TLS === 'on' && !LB_TLS_CERTIFICATE;
}

function isL4({ LB_LAYER }: NodeJS.ProcessEnv): boolean {
  return LB_LAYER === 'l4';
}

/** Asked for by name, since nobody has a key yet who tries Naru; whoever has set some wants them used. */
function authOf({ AUTH, API_KEYS, API_KEYS_FILE }: NodeJS.ProcessEnv): string {
  return AUTH || (API_KEYS || API_KEYS_FILE ? 'api-key' : 'none');
}

async function assertFree({ port, replicas }: Options): Promise<void> {
  const server = createServer();
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve).listen(port, () => {
      server.close(() => {
        resolve(undefined);
      });
    });
  });
  if (error?.code === 'EADDRINUSE') {
    throw new Error(
      `Port ${port} is in use; choose another one with: npm start -- ${replicas === undefined ? '' : `--replicas ${replicas} `}--port ${port + 1}`,
    );
  }
  if (error)
    throw new Error(
      `Port ${port} can't be used (${error.code ?? error.message}); choose another one with --port.`,
    );
}
