import { hostname } from 'node:os';
import { flag, integer, list, oneOf, readEnv, type Rule, secret, text, url, type Values } from '#env';
import { IMAGE_TYPES, type ImageType } from '#image-format';
import { S3_RULE, S3_VARIABLES, type S3Options, toS3Options, uploadMemoryBytes } from '#object-store';

const MiB = 1024 * 1024;
const DEFAULT_TYPES: readonly ImageType[] = [
  'image/jpeg',
  'image/png',
  'image/gif',
  'image/webp',
  'image/avif',
];

// This file is the only one of the service that knows the environment, but for S3_VARIABLES, which other programs
// read as well; .env.example explains each variable.
const VARIABLES = {
  NODE_ENV: text('a name').optional(),
  PORT: integer({ min: 0, max: 65_535, default: 3000 }),
  HOST: text('an address to listen on').default('0.0.0.0'),
  REPLICA_ID: text('1 to 64 letters, digits, ".", "_" or "-"', /^[\w.-]{1,64}$/).optional(),
  // PM2 numbers the replicas that it starts on one host.
  NODE_APP_INSTANCE: text('a number', /^\d{1,6}$/).optional(),
  PUBLIC_URL: url().optional(),
  PROXY_PROTOCOL: flag().default(false),
  LOG_LEVEL: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),

  AUTH: oneOf(['api-key', 'none']).optional(),
  // `optional` goes inside: what wraps a secret no longer counts as one.
  API_KEYS: secret(list(text('name:sha256-hex, parted by commas', /^[\w.-]{1,64}:[\da-f]{64}$/i)).optional()),

  MAX_IMAGE_BYTES: integer({ min: 1, max: 1024 * MiB, default: 20 * MiB }),
  MAX_IMAGES_PER_REQUEST: integer({ min: 1, max: 100, default: 10 }),
  MAX_PIXELS: integer({ min: 1, max: 10_000_000_000, default: 100_000_000 }),
  ALLOWED_TYPES: list(oneOf(IMAGE_TYPES)).optional(),
  UPLOAD_TIMEOUT_MS: integer({ min: 100, max: 3_600_000, default: 120_000 }),
  MAX_UPLOAD_MEMORY_BYTES: integer({ min: MiB, max: 64 * 1024 * MiB, default: 256 * MiB }),
  UPLOAD_WAIT_MS: integer({ min: 0, max: 60_000, default: 5_000 }),

  ...S3_VARIABLES,

  DRAIN_DELAY_MS: integer({ min: 0, max: 300_000, default: 2_000 }),
  SHUTDOWN_TIMEOUT_MS: integer({ min: 100, max: 600_000, default: 25_000 }),
};

type Env = Values<typeof VARIABLES>;

const RULES: readonly Rule<Env>[] = [
  {
    of: ['NODE_ENV', 'AUTH', 'API_KEYS'],
    problem: (env) =>
      authMode(env) === 'api-key' && env.API_KEYS === undefined
        ? 'API_KEYS is not set; expected name:sha256-hex, parted by commas, or AUTH=none to let anybody upload'
        : undefined,
  },
  {
    of: ['API_KEYS'],
    problem: ({ API_KEYS = [] }) => {
      const names = API_KEYS.map((entry) => parseKey(entry)[0]);
      const twice = names.find((name, index) => names.indexOf(name) !== index);
      return (
        twice && `API_KEYS names ${JSON.stringify(twice)} twice; expected a name of its own for each key`
      );
    },
  },
  S3_RULE,
  {
    of: ['MAX_IMAGE_BYTES', 'MAX_UPLOAD_MEMORY_BYTES', 'S3_PART_BYTES', 'S3_PARTS_IN_FLIGHT'],
    problem: (env) => {
      const needed = uploadMemoryBytes(env.MAX_IMAGE_BYTES, {
        partBytes: env.S3_PART_BYTES,
        partsInFlight: env.S3_PARTS_IN_FLIGHT,
      });
      return needed > env.MAX_UPLOAD_MEMORY_BYTES
        ? `MAX_UPLOAD_MEMORY_BYTES is ${env.MAX_UPLOAD_MEMORY_BYTES}; expected ${needed} at least, which one image of MAX_IMAGE_BYTES can take`
        : undefined;
    },
  },
  {
    of: ['DRAIN_DELAY_MS', 'SHUTDOWN_TIMEOUT_MS'],
    problem: ({ DRAIN_DELAY_MS, SHUTDOWN_TIMEOUT_MS }) =>
      DRAIN_DELAY_MS >= SHUTDOWN_TIMEOUT_MS
        ? `DRAIN_DELAY_MS is ${DRAIN_DELAY_MS}; expected less than SHUTDOWN_TIMEOUT_MS (${SHUTDOWN_TIMEOUT_MS})`
        : undefined,
  },
];

export interface UploadConfig {
  readonly maxImageBytes: number;
  readonly maxImagesPerRequest: number;
  readonly maxPixels: number;
  readonly allowedTypes: ReadonlySet<ImageType>;
  /** From the first byte of a request's body to its last. */
  readonly timeoutMs: number;
  /** What all uploads of this replica may hold together. */
  readonly maxMemoryBytes: number;
  /** How long an upload waits for that memory before it is refused. */
  readonly waitMs: number;
  readonly partBytes: number;
  readonly partsInFlight: number;
}

/** The settings of one replica, and the token they are injected by; `readConfig` makes the value. */
export abstract class Config {
  readonly port!: number;
  readonly host!: string;
  readonly replicaId!: string;
  /** Without one, the URLs of an answer are paths. */
  readonly publicUrl!: string;
  /** Whether each connection begins with who the client is, as an L4 balancer tells it. */
  readonly proxyProtocol!: boolean;
  readonly logLevel!: string;
  /** SHA-256 of each key by its name; undefined when anybody may write. */
  readonly apiKeys!: ReadonlyMap<string, Buffer> | undefined;
  readonly upload!: UploadConfig;
  readonly s3!: S3Options;
  readonly drain!: { readonly delayMs: number; readonly timeoutMs: number };
}

/** @throws EnvError that names every wrong variable. */
export function readConfig(source: NodeJS.ProcessEnv = process.env): Config {
  const env = readEnv(VARIABLES, source, RULES);
  return {
    port: env.PORT,
    host: env.HOST,
    replicaId: env.REPLICA_ID ?? [hostname(), env.NODE_APP_INSTANCE].filter(Boolean).join('-'),
    publicUrl: env.PUBLIC_URL ?? '',
    proxyProtocol: env.PROXY_PROTOCOL,
    logLevel: env.LOG_LEVEL,
    apiKeys: authMode(env) === 'none' ? undefined : new Map((env.API_KEYS ?? []).map(parseKey)),
    upload: {
      maxImageBytes: env.MAX_IMAGE_BYTES,
      maxImagesPerRequest: env.MAX_IMAGES_PER_REQUEST,
      maxPixels: env.MAX_PIXELS,
      allowedTypes: new Set(env.ALLOWED_TYPES ?? DEFAULT_TYPES),
      timeoutMs: env.UPLOAD_TIMEOUT_MS,
      maxMemoryBytes: env.MAX_UPLOAD_MEMORY_BYTES,
      waitMs: env.UPLOAD_WAIT_MS,
      partBytes: env.S3_PART_BYTES,
      partsInFlight: env.S3_PARTS_IN_FLIGHT,
    },
    s3: toS3Options(env),
    drain: { delayMs: env.DRAIN_DELAY_MS, timeoutMs: env.SHUTDOWN_TIMEOUT_MS },
  };
}

/** A service that anybody may write to has to be asked for by name in production. */
function authMode(env: Env): 'api-key' | 'none' {
  return env.AUTH ?? (env.NODE_ENV === 'production' || env.API_KEYS ? 'api-key' : 'none');
}

function parseKey(entry: string): [string, Buffer] {
  const [name = '', hex = ''] = entry.split(':');
  return [name, Buffer.from(hex, 'hex')];
}
