import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EnvError } from '#env';
import { readConfig } from './config.js';

const HASH = 'ab'.repeat(32);
const REQUIRED = { S3_BUCKET: 'photos' };

/** What is wrong, one line for each; none when nothing is. */
function problemsOf(environment: NodeJS.ProcessEnv): readonly string[] {
  try {
    readConfig({ ...REQUIRED, ...environment });
    return [];
  } catch (error) {
    if (error instanceof EnvError) return error.problems;
    throw error;
  }
}

describe('readConfig', () => {
  it('needs no more than a bucket, and takes the documented defaults', () => {
    expect(readConfig(REQUIRED)).toMatchObject({
      port: 3000,
      publicUrl: '',
      logLevel: 'info',
      apiKeys: undefined,
      upload: {
        maxImageBytes: 20_971_520,
        maxImagesPerRequest: 10,
        maxPixels: 100_000_000,
        allowedTypes: new Set(['image/jpeg', 'image/png', 'image/gif', 'image/webp', 'image/avif']),
      },
      // AWS: its own endpoint, the bucket in the host name, credentials of the machine.
      s3: { endpoint: undefined, credentials: undefined, forcePathStyle: false, bucket: 'photos' },
    });
  });

  it('takes every value that is set', () => {
    const config = readConfig({
      PORT: '0',
      HOST: '::1',
      REPLICA_ID: 'api-3.eu_1',
      PUBLIC_URL: 'https://images.example.com/naru/',
      LOG_LEVEL: 'trace',
      AUTH: 'api-key',
      API_KEYS: `web:${HASH}, batch:${HASH.toUpperCase()},`,
      ALLOWED_TYPES: 'image/heic , image/jpeg',
      MAX_IMAGE_BYTES: '1',
      S3_ENDPOINT: 'https://kr.object.ncloudstorage.com',
      S3_REGION: 'kr-standard',
      S3_BUCKET: 'photos',
      S3_ACCESS_KEY_ID: 'id',
      S3_SECRET_ACCESS_KEY: 'secret',
      S3_FORCE_PATH_STYLE: 'false',
      S3_CREATE_BUCKET: 'true',
      DRAIN_DELAY_MS: '0',
    });
    expect(config).toMatchObject({
      port: 0,
      host: '::1',
      replicaId: 'api-3.eu_1',
      publicUrl: 'https://images.example.com/naru',
      logLevel: 'trace',
      upload: { allowedTypes: new Set(['image/heic', 'image/jpeg']), maxImageBytes: 1 },
      s3: {
        endpoint: 'https://kr.object.ncloudstorage.com',
        region: 'kr-standard',
        credentials: { accessKeyId: 'id', secretAccessKey: 'secret' },
        forcePathStyle: false,
        createBucket: true,
      },
      drain: { delayMs: 0 },
    });
    expect([...config.apiKeys!]).toEqual([
      ['web', Buffer.from(HASH, 'hex')],
      ['batch', Buffer.from(HASH, 'hex')],
    ]);
  });

  it('puts the bucket into the path when there is an endpoint and nothing else is asked for', () => {
    const { s3 } = readConfig({
      ...REQUIRED,
      S3_ENDPOINT: 'http://minio:9000',
      S3_ACCESS_KEY_ID: 'id',
      S3_SECRET_ACCESS_KEY: 'secret',
    });
    expect(s3.forcePathStyle).toBe(true);
  });

  it('takes an empty value for an unset one, as compose files pass it on', () => {
    const sources = ['config.ts', '../../../libs/object-store/src/s3/s3-env.ts'].map((path) =>
      readFileSync(join(import.meta.dirname, path), 'utf8'),
    );
    const names = sources.join('').matchAll(/^ {2}([A-Z\d_]+): /gm);
    const empty = Object.fromEntries([...names].map(([, name]) => [name, '']));
    expect(Object.keys(empty)).toContain('S3_SECRET_ACCESS_KEY');
    expect(readConfig({ ...empty, ...REQUIRED, API_KEYS_FILE: '' })).toEqual(readConfig(REQUIRED));
  });
});

describe('a bad environment', () => {
  it('is told at once: every variable, what it holds, and what is allowed', () => {
    expect(
      problemsOf({
        NODE_ENV: 'production',
        PORT: '70000',
        REPLICA_ID: 'a b',
        PUBLIC_URL: 'images.example.com',
        LOG_LEVEL: 'verbose',
        AUTH: 'basic',
        MAX_IMAGE_BYTES: '20MB',
        ALLOWED_TYPES: 'image/jpeg,image/svg+xml',
        S3_ENDPOINT: 'minio:9000',
        S3_BUCKET: '',
        S3_FORCE_PATH_STYLE: 'yes',
        S3_ACCESS_KEY_ID: 'id',
        DRAIN_DELAY_MS: '30000',
      }),
    ).toEqual([
      'PORT holds "70000"; expected a whole number from 0 to 65535',
      'REPLICA_ID holds "a b"; expected 1 to 64 letters, digits, ".", "_" or "-"',
      'PUBLIC_URL holds "images.example.com"; expected an http:// or https:// URL without "?", "#" or a user and password',
      'LOG_LEVEL holds "verbose"; expected one of fatal, error, warn, info, debug, trace, silent',
      'AUTH holds "basic"; expected one of api-key, none',
      'MAX_IMAGE_BYTES holds "20MB"; expected a whole number from 1 to 1073741824',
      'ALLOWED_TYPES holds "image/jpeg,image/svg+xml"; expected one of image/jpeg, image/png, image/gif, image/webp, image/avif, image/heic, image/heif',
      'S3_ENDPOINT holds "minio:9000"; expected an http:// or https:// URL without "?", "#" or a user and password',
      'S3_BUCKET is not set; expected a bucket name: 3 to 63 lower-case letters, digits, "." or "-"',
      'S3_FORCE_PATH_STYLE holds "yes"; expected true or false',
      'DRAIN_DELAY_MS is 30000; expected less than SHUTDOWN_TIMEOUT_MS (25000)',
    ]);
  });

  it.each(['http://user:pa55word@minio:9000', 'user:pa55word@minio:9000', 'ftp://user:pa55word@minio'])(
    'is not shown where it holds a password: %s',
    (S3_ENDPOINT) => {
      expect(problemsOf({ ...REQUIRED, S3_ENDPOINT })[0]).toMatch(
        /^S3_ENDPOINT holds a value that is not shown; expected .* without .* a user and password$/,
      );
    },
  );

  it('is told in one message that says where to read on', () => {
    expect(() => readConfig({ ...REQUIRED, PORT: 'x' })).toThrow(
      '1 environment variable is wrong:\n' +
        '  PORT holds "x"; expected a whole number from 0 to 65535\n' +
        'See .env.example for all of them.',
    );
    expect(() => readConfig({ PORT: 'x' })).toThrow(/^2 environment variables are wrong:\n/);
  });

  it.each(['-1', '1.5', '1e3', '0x10', ' 80', '80 ', '1_000', '٣', '99999999999999999999', 'NaN'])(
    'does not take %j for a number',
    (PORT) => {
      expect(problemsOf({ PORT })).toEqual([expect.stringContaining(`PORT holds ${JSON.stringify(PORT)}`)]);
    },
  );

  it.each([
    'ftp://images.example.com',
    '//images.example.com',
    'http://',
    'http:// a',
    'https://a.example/?x=1',
    'https://a.example/#x',
  ])('does not take %j for an address', (PUBLIC_URL) => {
    expect(problemsOf({ PUBLIC_URL })).toEqual([expect.stringMatching(/^PUBLIC_URL holds /)]);
  });

  it.each(['TRUE', '1', 'on', 'no'])('does not take %j for true or false', (S3_CREATE_BUCKET) => {
    expect(problemsOf({ S3_CREATE_BUCKET })).toHaveLength(1);
  });

  it.each(['ab', 'Photos', 'a_b', '-ab', 'ab-', 'a'.repeat(64), '../x', 'a/b'])(
    'does not take %j for the name of a bucket',
    (S3_BUCKET) => {
      expect(problemsOf({ S3_BUCKET })).toEqual([expect.stringMatching(/^S3_BUCKET holds /)]);
    },
  );

  it('does not take a list without items for one', () => {
    expect(problemsOf({ ALLOWED_TYPES: ',' })).toEqual([
      'ALLOWED_TYPES holds ","; expected at least one item',
    ]);
    expect(problemsOf({ API_KEYS: ' , ' })).toEqual([
      'API_KEYS holds a value that is not shown; expected at least one item',
    ]);
  });

  describe('that contradicts itself', () => {
    it.each([
      [
        'production without keys, unless that is asked for by name',
        { NODE_ENV: 'production' },
        [/^API_KEYS is not set; .* or AUTH=none/],
      ],
      ['AUTH=api-key without keys', { AUTH: 'api-key' }, [/^API_KEYS is not set; /]],
      ['AUTH=api-key with empty keys', { AUTH: 'api-key', API_KEYS: '' }, [/^API_KEYS is not set; /]],
      [
        'two keys of one name, of which one would never work',
        { API_KEYS: `web:${HASH},cli:${HASH},web:${'cd'.repeat(32)}` },
        [/^API_KEYS names "web" twice/],
      ],
      ['an id without its secret', { S3_ACCESS_KEY_ID: 'id' }, [/^S3_SECRET_ACCESS_KEY is not set/]],
      ['a secret without its id', { S3_SECRET_ACCESS_KEY: 'secret' }, [/^S3_ACCESS_KEY_ID is not set/]],
      [
        'an endpoint without credentials',
        { S3_ENDPOINT: 'http://minio:9000' },
        [/^S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY are not set; .*S3_ENDPOINT/],
      ],
      [
        'images larger than the memory for them',
        { MAX_IMAGE_BYTES: '4000000', MAX_UPLOAD_MEMORY_BYTES: '2000000' },
        [/^MAX_UPLOAD_MEMORY_BYTES is 2000000; expected 4000000 at least/],
      ],
      [
        'S3 parts larger than the memory for them',
        { S3_PART_BYTES: '10485760', S3_PARTS_IN_FLIGHT: '32' },
        [/^MAX_UPLOAD_MEMORY_BYTES is 268435456; expected 346030080 at least/],
      ],
      [
        'a drain longer than the grace period',
        { DRAIN_DELAY_MS: '5000', SHUTDOWN_TIMEOUT_MS: '5000' },
        [/^DRAIN_DELAY_MS is 5000; expected less than SHUTDOWN_TIMEOUT_MS \(5000\)/],
      ],
    ])('is told: %s', (_what, environment, problems) => {
      expect(problemsOf(environment)).toEqual(problems.map((problem) => expect.stringMatching(problem)));
    });

    it('is told together with what is wrong by itself', () => {
      expect(problemsOf({ PORT: 'x', AUTH: 'api-key', S3_ACCESS_KEY_ID: 'id' })).toEqual([
        expect.stringMatching(/^PORT holds "x"/),
        expect.stringMatching(/^API_KEYS is not set/),
        expect.stringMatching(/^S3_SECRET_ACCESS_KEY is not set/),
      ]);
    });

    it('is not told of a variable that is wrong by itself', () => {
      expect(problemsOf({ AUTH: 'api-key', API_KEYS: 'web' })).toEqual([
        expect.stringContaining('API_KEYS holds'),
      ]);
      expect(problemsOf({ AUTH: 'x', NODE_ENV: 'production' })).toHaveLength(1);
    });
  });
});

describe('who may write', () => {
  it.each([
    ['anybody, on a machine of one’s own', {}, false],
    [
      'anybody, in production, when that is asked for by name',
      { NODE_ENV: 'production', AUTH: 'none' },
      false,
    ],
    [
      'anybody, although there are keys, when that is asked for by name',
      { AUTH: 'none', API_KEYS: `a:${HASH}` },
      false,
    ],
    ['who has a key, once there are keys', { API_KEYS: `a:${HASH}` }, true],
    ['who has a key, in production', { NODE_ENV: 'production', API_KEYS: `a:${HASH}` }, true],
    ['who has a key, when that is asked for', { AUTH: 'api-key', API_KEYS: `a:${HASH}` }, true],
  ])('is %s', (_who, environment, needsKey) => {
    expect(readConfig({ ...REQUIRED, ...environment }).apiKeys !== undefined).toBe(needsKey);
  });
});

describe('a secret', () => {
  let folder: string;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'naru-config-'));
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  function file(content: string): string {
    const path = join(folder, `secret-${Math.random()}`);
    writeFileSync(path, content);
    return path;
  }

  it('may come from a file, white space around it dropped', () => {
    const config = readConfig({
      ...REQUIRED,
      S3_ACCESS_KEY_ID_FILE: file('the-id\n'),
      S3_SECRET_ACCESS_KEY_FILE: file('  the/secret+with=signs\r\n'),
      API_KEYS_FILE: file(`web:${HASH},\ncli:${HASH}\n`),
    });
    expect(config.s3.credentials).toEqual({
      accessKeyId: 'the-id',
      secretAccessKey: 'the/secret+with=signs',
    });
    expect([...config.apiKeys!.keys()]).toEqual(['web', 'cli']);
  });

  it('is unset when its file is empty', () => {
    expect(problemsOf({ S3_ACCESS_KEY_ID: 'id', S3_SECRET_ACCESS_KEY_FILE: file(' \n') })).toEqual([
      expect.stringMatching(/^S3_SECRET_ACCESS_KEY is not set/),
    ]);
  });

  it('is refused when its file is not there, or when it is there twice', () => {
    expect(problemsOf({ API_KEYS_FILE: '/no/such/file' })).toEqual([
      `API_KEYS_FILE holds "/no/such/file", which can't be read (ENOENT)`,
    ]);
    expect(problemsOf({ API_KEYS_FILE: folder })).toEqual([expect.stringContaining('(EISDIR)')]);
    expect(problemsOf({ API_KEYS: `web:${HASH}`, API_KEYS_FILE: file(`web:${HASH}`) })).toEqual([
      'API_KEYS and API_KEYS_FILE are both set; set one of them',
    ]);
  });

  it('comes from a file only where it is one', () => {
    expect(readConfig({ ...REQUIRED, PORT_FILE: '/no/such/file' }).port).toBe(3000);
  });

  it.each([
    ['a key as it is, in the place of its hash', { API_KEYS: 'web:hunter2' }],
    ['a key without a name', { API_KEYS: 'hunter2' }],
    ['a key of two', { API_KEYS: `web:${HASH},cli:hunter2` }],
    ['a secret without its id', { S3_SECRET_ACCESS_KEY: 'hunter2' }],
    ['an id without its secret', { S3_ACCESS_KEY_ID: 'hunter2' }],
    ['a secret beside its file', { S3_SECRET_ACCESS_KEY: 'hunter2', S3_SECRET_ACCESS_KEY_FILE: '/x' }],
  ])('is never shown: %s', (_what, environment) => {
    const problems = problemsOf(environment);
    expect(problems).not.toHaveLength(0);
    expect(problems.join('\n')).not.toMatch(new RegExp(`hunter2|${HASH}`));
  });

  it('is never shown from a file either', () => {
    const problems = problemsOf({ API_KEYS_FILE: file('web:hunter2') });
    expect(problems).toEqual([expect.stringContaining('a value that is not shown')]);
  });
});
