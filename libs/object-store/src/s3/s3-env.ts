import { flag, integer, type Rule, secret, text, url, type Values } from '#env';
import { type S3Options } from './s3-object-store.js';

const MiB = 1024 * 1024;

/** The environment of every program that talks to the store; .env.example explains each variable. */
export const S3_VARIABLES = {
  S3_ENDPOINT: url().optional(),
  S3_REGION: text('a region', /^[\w-]{1,64}$/).default('us-east-1'),
  S3_BUCKET: text(
    'a bucket name: 3 to 63 lower-case letters, digits, "." or "-"',
    /^[a-z\d][a-z\d.-]{1,61}[a-z\d]$/,
  ),
  S3_ACCESS_KEY_ID: secret(text('an access key id').optional()),
  S3_SECRET_ACCESS_KEY: secret(text('a secret access key').optional()),
  S3_FORCE_PATH_STYLE: flag().optional(),
  S3_CREATE_BUCKET: flag().default(false),
  S3_PART_BYTES: integer({ min: 5 * MiB, max: 1024 * MiB, default: 5 * MiB }),
  S3_PARTS_IN_FLIGHT: integer({ min: 1, max: 32, default: 2 }),
  S3_MAX_SOCKETS: integer({ min: 1, max: 10_000, default: 256 }),
  S3_CONNECT_TIMEOUT_MS: integer({ min: 10, max: 60_000, default: 2_000 }),
  S3_REQUEST_TIMEOUT_MS: integer({ min: 10, max: 600_000, default: 15_000 }),
  S3_MAX_ATTEMPTS: integer({ min: 1, max: 10, default: 3 }),
  S3_BUDGET_MS: integer({ min: 100, max: 600_000, default: 20_000 }),
  S3_CONDITIONAL_PUT: flag().default(true),
};

export type S3Env = Values<typeof S3_VARIABLES>;

/** To be checked wherever `S3_VARIABLES` are read. */
export const S3_RULE: Rule<S3Env> = {
  of: ['S3_ENDPOINT', 'S3_ACCESS_KEY_ID', 'S3_SECRET_ACCESS_KEY'],
  problem: (env) => {
    const missing = (['S3_ACCESS_KEY_ID', 'S3_SECRET_ACCESS_KEY'] as const).filter((name) => !env[name]);
    if (missing.length === 1) return `${missing.join()} is not set; expected both credentials or none`;
    return missing.length === 2 && env.S3_ENDPOINT
      ? `${missing.join(' and ')} are not set; expected both, since S3_ENDPOINT is set`
      : undefined;
  },
};

export function toS3Options(env: S3Env): S3Options {
  const { S3_ACCESS_KEY_ID: accessKeyId, S3_SECRET_ACCESS_KEY: secretAccessKey } = env;
  return {
    endpoint: env.S3_ENDPOINT,
    region: env.S3_REGION,
    bucket: env.S3_BUCKET,
    credentials: accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey } : undefined,
    forcePathStyle: env.S3_FORCE_PATH_STYLE ?? env.S3_ENDPOINT !== undefined,
    createBucket: env.S3_CREATE_BUCKET,
    partBytes: env.S3_PART_BYTES,
    partsInFlight: env.S3_PARTS_IN_FLIGHT,
    maxSockets: env.S3_MAX_SOCKETS,
    connectTimeoutMs: env.S3_CONNECT_TIMEOUT_MS,
    requestTimeoutMs: env.S3_REQUEST_TIMEOUT_MS,
    maxAttempts: env.S3_MAX_ATTEMPTS,
    budgetMs: env.S3_BUDGET_MS,
    conditionalPut: env.S3_CONDITIONAL_PUT,
  };
}
