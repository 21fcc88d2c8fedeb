import { createHash } from 'node:crypto';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { type Response, type Test } from 'supertest';
import { type ProblemCode, PROBLEMS } from '../src/problem/problem.js';
import { Bucket, Replica, smallPhoto, until } from './harness.js';
import { StoreProxy } from './store-proxy.js';

interface Answer {
  description: string;
  headers?: object;
  content?: Record<string, { schema: object }>;
}
interface Operation {
  operationId: string;
  summary: string;
  security?: Record<string, unknown>[];
  requestBody?: { required: boolean; content: Record<string, { schema: Record<string, unknown> }> };
  responses: Record<string, Answer>;
}
type Method = 'get' | 'head' | 'post' | 'delete';
interface OpenApi {
  openapi: string;
  paths: Record<string, Partial<Record<Method, Operation>>>;
  components: { securitySchemes: Record<string, object> };
}

const KEY = 'a-key';
const API_KEYS = `test:${createHash('sha256').update(KEY).digest('hex')}`;

const STORE: ProblemCode[] = ['INTERNAL', 'STORE_UNAVAILABLE'];
/** Every route of the contract, and the codes that its problems may have. */
const ROUTES: Record<string, ProblemCode[]> = {
  'post /images': [
    'MALFORMED_MULTIPART',
    'NO_IMAGE',
    'UNEXPECTED_FIELD',
    'TOO_MANY_IMAGES',
    'INVALID_ARGUMENT',
    'UNAUTHENTICATED',
    'UPLOAD_TIMEOUT',
    'IMAGE_TOO_LARGE',
    'UNSUPPORTED_IMAGE',
    'UNSUPPORTED_MEDIA_TYPE',
    'CORRUPT_IMAGE',
    'TOO_MANY_PIXELS',
    'IDEMPOTENCY_KEY_REUSED',
    'DRAINING',
    'OVERLOADED',
    ...STORE,
  ],
  'get /images': ['INVALID_ARGUMENT', 'UNAUTHENTICATED', ...STORE],
  'get /images/{id}': ['INVALID_ARGUMENT', 'NOT_FOUND', 'RANGE_NOT_SATISFIABLE', ...STORE],
  // An answer to HEAD has no body to hold a code.
  'head /images/{id}': [],
  'delete /images/{id}': ['INVALID_ARGUMENT', 'UNAUTHENTICATED', 'NOT_FOUND', ...STORE],
  'get /images/{id}/info': ['INVALID_ARGUMENT', 'NOT_FOUND', ...STORE],
  'get /health': [],
  'get /health/live': [],
  'get /health/ready': [],
  'get /metrics': [],
};

describe('the OpenAPI document', () => {
  let bucket: Bucket;
  let proxy: StoreProxy;
  let replica: Replica;
  let document: OpenApi;
  let photo: Buffer;
  const ajv = new Ajv2020({ strict: false, validateFormats: false });

  beforeAll(async () => {
    bucket = await Bucket.open();
    proxy = await StoreProxy.open(bucket);
    replica = await Replica.start(bucket, {
      AUTH: 'api-key',
      API_KEYS,
      S3_ENDPOINT: proxy.url,
      MAX_IMAGES_PER_REQUEST: '2',
      MAX_IMAGE_BYTES: '50000',
    });
    photo = await smallPhoto(16);
    document = (await replica.http.get('/openapi.json').expect(200)).body;
    ajv.addSchema(document, 'naru');
  });
  afterAll(async () => {
    await replica.close();
    await proxy.down();
    await bucket.close();
  });

  const operations = (): [string, Operation][] =>
    Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]): [string, Operation] => [
        `${method} ${path}`,
        operation,
      ]),
    );

  it('is valid OpenAPI 3.1', async () => {
    expect(document.openapi).toMatch(/^3\.1\./);
    const validator = new Validator();
    const { valid, errors } = await validator.validate(structuredClone(document) as never);
    expect(errors ?? []).toEqual([]);
    expect(valid).toBe(true);
    expect(validator.version).toBe('3.1');
  });

  it('describes every route of the contract, and none beside them', () => {
    expect(
      operations()
        .map(([route]) => route)
        .toSorted(),
    ).toEqual(Object.keys(ROUTES).toSorted());
  });

  it('gives every operation a name to generate a function from, and every answer some words', () => {
    const names = operations().map(([, { operationId }]) => operationId);
    expect(new Set(names).size).toBe(names.length);
    for (const [, { operationId, summary, responses }] of operations()) {
      expect(operationId).toMatch(/^[a-z][A-Za-z]+$/);
      expect(summary).not.toBe('');
      for (const { description } of Object.values(responses)) expect(description).not.toBe('');
    }
  });

  it.each(Object.entries(ROUTES))('names every problem of %s under its status', (route, codes) => {
    const [, operation] = operations().find(([name]) => name === route)!;
    const described = Object.entries(operation.responses).flatMap(([status, { content, headers }]) => {
      const problem = content?.['application/problem+json']?.schema as
        { properties: { code: { enum: string[] } } } | undefined;
      if (problem && status === '503') expect(headers).toHaveProperty('Retry-After');
      return problem?.properties.code.enum.map((code) => `${status} ${code}`) ?? [];
    });
    expect(described.toSorted()).toEqual(codes.map((code) => `${PROBLEMS[code].status} ${code}`).toSorted());
  });

  it('leaves out no code that there is', () => {
    const described = new Set(Object.values(ROUTES).flat());
    // Who asks for a method that isn't described can't look it up under that method.
    expect(Object.keys(PROBLEMS).filter((code) => !described.has(code as ProblemCode))).toEqual([
      'METHOD_NOT_ALLOWED',
    ]);
  });

  it('asks for one or more files in a form', () => {
    const { requestBody } = document.paths['/images']!.post!;
    expect(requestBody).toEqual({
      required: true,
      content: {
        'multipart/form-data': {
          schema: {
            type: 'object',
            required: ['images'],
            properties: {
              images: { type: 'array', minItems: 1, items: { type: 'string', format: 'binary' } },
            },
          },
        },
      },
    });
  });

  it('asks for a key where one is needed, one way or the other', () => {
    const needKey = operations().filter(([, { security }]) => security !== undefined);
    expect(needKey.map(([route]) => route)).toEqual(['post /images', 'get /images', 'delete /images/{id}']);
    for (const [, { security }] of needKey) expect(security).toEqual([{ bearer: [] }, { apiKey: [] }]);
    expect(document.components.securitySchemes).toMatchObject({
      bearer: { type: 'http', scheme: 'bearer' },
      apiKey: { type: 'apiKey', in: 'header', name: 'X-Api-Key' },
    });
  });

  describe('describes what is really answered', () => {
    let url: string;

    beforeAll(async () => {
      url = (await post(photo)).body.images[0].url;
    });

    const withKey = (test: Test) => test.set('X-Api-Key', KEY);
    const post = (...files: Buffer[]) => withKey(replica.upload(...files));

    /** Looks the answer up as a generated client would: by operation, status and type; then checks its body. */
    function expectDescribed(method: Method, path: string, response: Response): void {
      const { status } = response;
      const type = (response.headers['content-type'] as string)
        .replace(/ *;.*/, '')
        .replace(/^image\/.*/, 'image/*');
      const answer: Answer | undefined = document.paths[path]?.[method]?.responses[status];
      const described = answer?.content?.[type];
      expect([method, path, status, type, described]).toEqual([
        method,
        path,
        status,
        type,
        expect.any(Object),
      ]);
      if (!type.endsWith('json')) return;
      const pointer = ['paths', path, method, 'responses', String(status), 'content', type, 'schema']
        .map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1')))
        .join('/');
      const validate = ajv.compile({ $ref: `naru#/${pointer}` });
      validate(response.body);
      expect(validate.errors ?? []).toEqual([]);
    }

    it.each<[string, () => Promise<Response>, Method, string, number]>([
      ['an upload', () => post(photo, photo), 'post', '/images', 201],
      ['too many images', () => post(photo, photo, photo), 'post', '/images', 400],
      ['an upload without a key', () => replica.upload(photo), 'post', '/images', 401],
      [
        'an image too large',
        () => post(Buffer.concat([photo, Buffer.alloc(60_000)])),
        'post',
        '/images',
        413,
      ],
      ['no image', () => post(Buffer.from('%PDF-1.7 no image')), 'post', '/images', 415],
      ['no form', () => withKey(replica.http.post('/images')).send({ images: [] }), 'post', '/images', 415],
      ['half an image', () => post(photo.subarray(0, photo.length / 2)), 'post', '/images', 422],
      ['a page', () => withKey(replica.http.get('/images?limit=1')), 'get', '/images', 200],
      ['the last page', () => withKey(replica.http.get('/images?limit=100')), 'get', '/images', 200],
      ['a bad limit', () => withKey(replica.http.get('/images?limit=0')), 'get', '/images', 400],
      ['a list without a key', () => replica.http.get('/images'), 'get', '/images', 401],
      ['an image', () => replica.http.get(url), 'get', '/images/{id}', 200],
      ['a range', () => replica.http.get(url).set('Range', 'bytes=0-9'), 'get', '/images/{id}', 206],
      ['a bad range', () => replica.http.get(url).set('Range', 'bytes=999999-'), 'get', '/images/{id}', 416],
      ['a bad path', () => replica.http.get('/images/%zz'), 'get', '/images/{id}', 400],
      ['no such image', () => replica.http.get('/images/nothing'), 'get', '/images/{id}', 404],
      ['what is known', () => replica.http.get(`${url}/info`), 'get', '/images/{id}/info', 200],
      ['nothing known', () => replica.http.get('/images/no/info'), 'get', '/images/{id}/info', 404],
      ['nothing to delete', () => withKey(replica.http.delete('/images/no')), 'delete', '/images/{id}', 404],
      ['a deletion without a key', () => replica.http.delete(url), 'delete', '/images/{id}', 401],
      ['health', () => replica.http.get('/health'), 'get', '/health', 200],
      ['liveness', () => replica.http.get('/health/live'), 'get', '/health/live', 200],
      ['readiness', () => replica.http.get('/health/ready'), 'get', '/health/ready', 200],
      ['metrics', () => replica.http.get('/metrics'), 'get', '/metrics', 200],
    ])('%s', async (_what, ask, method, path, status) => {
      const response = await ask();
      expect(response.status).toBe(status);
      expectDescribed(method, path, response);
    });

    it('a store that is away', async () => {
      await proxy.down();
      await until(async () => (await replica.http.get('/health/ready')).status === 503);
      try {
        expectDescribed('post', '/images', await post(photo).expect(503));
        expectDescribed('get', '/images', await withKey(replica.http.get('/images')).expect(503));
        expectDescribed('get', '/images/{id}', await replica.http.get(url).expect(503));
        expectDescribed('get', '/images/{id}/info', await replica.http.get(`${url}/info`).expect(503));
        expectDescribed('delete', '/images/{id}', await withKey(replica.http.delete(url)).expect(503));
        expectDescribed('get', '/health', await replica.http.get('/health').expect(503));
        expectDescribed('get', '/health/ready', await replica.http.get('/health/ready').expect(503));
      } finally {
        await proxy.up();
      }
    });
  });

  it('is what Swagger UI shows at /docs, all of it from here', async () => {
    const page = await replica.http.get('/docs').redirects(1).expect(200);
    expect(page.headers['content-type']).toMatch(/^text\/html/);
    const assets = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, asset]) => asset!);
    expect(assets.some((asset) => asset.endsWith('swagger-ui-bundle.js'))).toBe(true);
    for (const asset of assets) {
      const { pathname, origin } = new URL(asset, `${replica.url}/docs`);
      expect(origin).toBe(replica.url);
      await replica.http.get(pathname).expect(200);
    }
    const { text } = await replica.http.get('/docs/swagger-ui-init.js').expect(200);
    expect(text).toContain('uploadImages');
  });
});
