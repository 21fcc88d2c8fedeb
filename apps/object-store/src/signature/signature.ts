import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { getCanonicalHeaders, getSigningKey, SignatureV4Base } from '@smithy/signature-v4';
import type { S3Request } from '../http/s3-request.js';
import { S3Error } from '../s3-error.js';

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
}

/** What the signature vouches for besides the headers; the chunks of an aws-chunked body go on from it. */
export interface VerifiedSignature {
  readonly signature: string;
  /** The time of signing as in `x-amz-date`. */
  readonly date: string;
  readonly scope: string;
  readonly signingKey: Uint8Array;
  /** The value of `x-amz-content-sha256`: a hash in hex, or a word that says how the body is signed. */
  readonly payload: string;
}

interface Claim {
  readonly accessKeyId: string;
  readonly scope: string;
  readonly date: string;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
  readonly payload: string;
}

const ALGORITHM = 'AWS4-HMAC-SHA256';
const SKEW_MS = 15 * 60 * 1000;
const LONGEST_PRESIGNED_S = 7 * 24 * 60 * 60;

/**
 * Verifies Signature Version 4, in the Authorization header or in the query of a presigned URL, by
 * signing the request again. Throws AccessDenied for an anonymous request and what S3 throws for a
 * wrong one; the body is not looked at.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
 */
export async function verifySignature(
  request: S3Request,
  credentials: Credentials,
): Promise<VerifiedSignature> {
  const claim = readClaim(request);
  const [shortDate, region, service, terminator] = claim.scope.split('/');
  if (claim.accessKeyId !== credentials.accessKeyId) throw new S3Error('InvalidAccessKeyId');
  if (service !== 's3' || terminator !== 'aws4_request' || shortDate !== claim.date.slice(0, 8)) {
    throw new S3Error('AuthorizationHeaderMalformed', 'The credential scope is malformed.');
  }
  if (region !== credentials.region) {
    throw new S3Error(
      'AuthorizationHeaderMalformed',
      `The region ${region} is wrong; expecting ${credentials.region}.`,
    );
  }
  assertSigned(request, claim.signedHeaders);

  const signingKey = await getSigningKey(Sha256, credentials, shortDate, region, service);
  const expected = await new RequestSigner(credentials).sign(request, claim, signingKey);
  if (!sameSignature(claim.signature, expected)) throw new S3Error('SignatureDoesNotMatch');
  return { ...claim, signingKey };
}

/** In constant time. */
export function sameSignature(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function readClaim(request: S3Request): Claim {
  const authorization = request.sentHeader('authorization');
  const presigned = request.query.has('X-Amz-Signature') || request.query.has('X-Amz-Algorithm');
  if (authorization !== undefined && presigned) {
    throw new S3Error('InvalidArgument', 'Only one way to sign a request is allowed.');
  }
  if (request.sentHeader('x-amz-security-token') ?? request.query.get('X-Amz-Security-Token')) {
    throw new S3Error('InvalidToken');
  }
  if (presigned) return readQuery(request);
  if (authorization === undefined) throw new S3Error('AccessDenied');
  return readHeader(request, authorization);
}

function readHeader(request: S3Request, authorization: string): Claim {
  if (!authorization.startsWith(`${ALGORITHM} `)) {
    throw new S3Error('InvalidRequest', `Please sign with ${ALGORITHM}.`);
  }
  const fields = new Map(
    authorization
      .slice(ALGORITHM.length)
      .split(',')
      .map((field) => field.trim().split(/=(.*)/s, 2) as [string, string]),
  );
  const [accessKeyId, scope] = fields.get('Credential')?.split(/\/(.*)/s, 2) ?? [];
  const signedHeaders = fields.get('SignedHeaders')?.split(';');
  const signature = fields.get('Signature');
  if (!accessKeyId || !scope || !signedHeaders || !signature) {
    throw new S3Error('AuthorizationHeaderMalformed');
  }

  const date = request.sentHeader('x-amz-date') ?? '';
  const signedAt = parseDate(date);
  if (signedAt === undefined) throw new S3Error('AccessDenied', 'x-amz-date is missing or malformed.');
  if (Math.abs(Date.now() - signedAt) > SKEW_MS) throw new S3Error('RequestTimeTooSkewed');

  const payload = request.sentHeader('x-amz-content-sha256');
  if (!payload) throw new S3Error('InvalidRequest', 'x-amz-content-sha256 is missing.');
  return { accessKeyId, scope, date, signedHeaders, signature, payload };
}

function readQuery(request: S3Request): Claim {
  const parameter = (name: string) => request.query.get(name) ?? '';
  const [accessKeyId, scope] = parameter('X-Amz-Credential').split(/\/(.*)/s, 2);
  const signature = parameter('X-Amz-Signature');
  const signedHeaders = parameter('X-Amz-SignedHeaders').split(';');
  const date = parameter('X-Amz-Date');
  const signedAt = parseDate(date);
  const expires = /^\d{1,6}$/.test(parameter('X-Amz-Expires')) ? Number(parameter('X-Amz-Expires')) : 0;
  if (
    parameter('X-Amz-Algorithm') !== ALGORITHM ||
    !accessKeyId ||
    !scope ||
    !signature ||
    signedAt === undefined ||
    expires < 1 ||
    expires > LONGEST_PRESIGNED_S
  ) {
    throw new S3Error('AuthorizationQueryParametersError');
  }
  if (signedAt - Date.now() > SKEW_MS) throw new S3Error('RequestTimeTooSkewed');
  if (signedAt + expires * 1000 < Date.now()) throw new S3Error('AccessDenied', 'The request has expired.');

  const payload =
    request.sentHeader('x-amz-content-sha256') ??
    request.query.get('X-Amz-Content-Sha256') ??
    'UNSIGNED-PAYLOAD';
  return { accessKeyId, scope, date, signedHeaders, signature, payload };
}

/** `20260102T030405Z` as milliseconds since 1970. */
function parseDate(date: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date);
  if (!match) return undefined;
  const [, year, month, day, hour, minute, second] = match.map(Number) as [never, ...number[]];
  const time = Date.UTC(year ?? 0, (month ?? 0) - 1, day, hour, minute, second);
  return Number.isNaN(time) ? undefined : time;
}

// Without this, somebody who holds a signed request could add headers to it that change what it means.
function assertSigned(request: S3Request, signedHeaders: readonly string[]): void {
  const unsigned = Object.keys(request.message.headersDistinct).filter(
    (name) => (name === 'host' || name.startsWith('x-amz-')) && !signedHeaders.includes(name),
  );
  if (unsigned.length > 0 || !signedHeaders.includes('host')) {
    throw new S3Error('AccessDenied', `Headers present but not signed: ${unsigned.join(', ') || 'host'}.`);
  }
}

class RequestSigner extends SignatureV4Base {
  constructor(credentials: Credentials) {
    super({ credentials, region: credentials.region, service: 's3', sha256: Sha256, uriEscapePath: false });
  }

  async sign(request: S3Request, claim: Claim, signingKey: Uint8Array): Promise<string> {
    const unsigned = {
      method: request.method,
      protocol: 'http:',
      hostname: '',
      path: canonicalPath(request.path),
      query: queryBag(request.query),
      headers: Object.fromEntries(
        claim.signedHeaders.map((name) => [name, fromWire(request.sentHeader(name) ?? '')]),
      ),
    };
    const canonicalRequest = this.createCanonicalRequest(
      unsigned,
      // Named here, a header is canonicalised even if the library itself would not sign it.
      getCanonicalHeaders(unsigned, undefined, new Set(claim.signedHeaders)),
      claim.payload,
    );
    const stringToSign = await this.createStringToSign(claim.date, claim.scope, canonicalRequest, ALGORITHM);
    return createHmac('sha256', signingKey).update(stringToSign).digest('hex');
  }
}

// Encoded anew, since clients differ in what they leave bare and S3 signs only one spelling.
function canonicalPath(path: string): string {
  return encodeURIComponent(decodeURIComponent(path))
    .replaceAll('%2F', '/')
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}

function queryBag(query: URLSearchParams): Record<string, string[]> {
  return Object.fromEntries([...new Set(query.keys())].map((name) => [name, query.getAll(name)]));
}

// Node reads headers as latin1; clients sign the UTF-8.
function fromWire(value: string): string {
  return Buffer.from(value, 'latin1').toString();
}

/** SHA-256, and HMAC when there is a secret, as the signature library wants it. */
class Sha256 {
  private readonly hash: ReturnType<typeof createHash | typeof createHmac>;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.hash = secret === undefined ? createHash('sha256') : createHmac('sha256', bytes(secret));
  }

  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.hash.update(bytes(data));
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.hash.digest());
  }
}

function bytes(data: string | ArrayBuffer | ArrayBufferView): string | Uint8Array {
  if (typeof data === 'string') return data;
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
