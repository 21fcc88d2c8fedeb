import type { S3Request } from '../http/s3-request.js';
import { S3Error } from '../s3-error.js';
import type { VerifiedSignature } from '../signature/signature.js';
import { decodeAwsChunked } from './aws-chunked.js';
import { decodeDigest, Digests, isDigestAlgorithm, type DigestAlgorithm } from './digests.js';

const LARGEST_BYTES = 5 * 1024 ** 3;

// Headers of this family that are not checksums themselves.
const NOT_A_CHECKSUM = new Set(['x-amz-checksum-algorithm', 'x-amz-checksum-type', 'x-amz-checksum-mode']);

interface Expectation {
  readonly algorithm: DigestAlgorithm;
  readonly value: Buffer;
  readonly otherwise: 'BadDigest' | 'XAmzContentSHA256Mismatch';
}

/**
 * The body of a request, its framing taken off. Whoever iterates to the end without an error has
 * every byte announced, and every length, digest and signature sent along held; until then the bytes
 * are only hearsay.
 */
export class RequestBody implements AsyncIterable<Buffer> {
  /** Length in bytes, without framing. */
  readonly bytes: number;
  private readonly digests: Digests;
  private readonly expectations: Expectation[];
  private readonly trailer: DigestAlgorithm | undefined;
  private readonly chunked: boolean;

  /**
   * Looks at the headers alone and throws what is wrong with them, so that a client which waits for
   * `100 Continue` is refused before it sends anything. `begin` is called when the first byte is wanted.
   */
  constructor(
    private readonly request: S3Request,
    private readonly signature: VerifiedSignature,
    private readonly begin: () => void,
  ) {
    this.chunked = signature.payload.startsWith('STREAMING-');
    this.bytes = announcedBytes(request, this.chunked);
    this.trailer = this.chunked ? announcedTrailer(request, signature.payload) : undefined;
    this.expectations = expectations(request, signature.payload);
    this.digests = new Digests([
      'md5',
      ...this.expectations.map(({ algorithm }) => algorithm),
      ...(this.trailer ? [this.trailer] : []),
    ]);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void> {
    this.begin();
    const trailers = new Map<string, string>();
    let received = 0;
    for await (const chunk of this.decoded(trailers)) {
      received += chunk.length;
      if (received > this.bytes) break;
      this.digests.update(chunk);
      yield chunk;
    }
    if (received !== this.bytes) throw new S3Error('IncompleteBody');
    if (this.trailer) this.expectations.push(trailingExpectation(this.trailer, trailers));
    for (const { algorithm, value, otherwise } of this.expectations) {
      if (!this.digests.of(algorithm).equals(value)) throw new S3Error(otherwise);
    }
  }

  /** Of the whole body, once it is read: what S3 uses as the entity tag. */
  md5(): Buffer {
    return this.digests.of('md5');
  }

  /** The checksums that were sent and held, as headers for the answer. */
  checksums(): Record<string, string> {
    return Object.fromEntries(
      this.expectations
        .filter(({ algorithm, otherwise }) => algorithm !== 'md5' && otherwise === 'BadDigest')
        .map(({ algorithm, value }) => [`x-amz-checksum-${algorithm}`, value.toString('base64')]),
    );
  }

  /** All of it, as text. Throws MaxMessageLengthExceeded when it is longer than that. */
  async text(maxBytes: number): Promise<string> {
    if (this.bytes > maxBytes) throw new S3Error('MaxMessageLengthExceeded');
    const chunks: Buffer[] = [];
    for await (const chunk of this) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  }

  /** Content-MD5 or a checksum came along. */
  get isProtected(): boolean {
    return this.trailer !== undefined || this.expectations.some(({ otherwise }) => otherwise === 'BadDigest');
  }

  private decoded(trailers: Map<string, string>): AsyncIterable<Buffer> {
    // Else leaving the loop would close the connection, and a client could not read why it was refused.
    const raw = this.request.message.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
    if (!this.chunked) return raw;
    const signed = this.signature.payload.startsWith('STREAMING-AWS4-HMAC-SHA256-PAYLOAD');
    const format = {
      signature: signed ? this.signature : undefined,
      trailers: this.signature.payload.endsWith('-TRAILER'),
    };
    return decodeAwsChunked(raw, format, trailers);
  }
}

function announcedBytes(request: S3Request, chunked: boolean): number {
  const sent = request.header(chunked ? 'x-amz-decoded-content-length' : 'content-length');
  // A request without a body needs no length (RFC 9110, section 8.6).
  if (sent === undefined && (chunked || request.header('transfer-encoding') !== undefined)) {
    throw new S3Error('MissingContentLength');
  }
  const bytes = Number(sent ?? 0);
  if (!/^\d{1,15}$/.test(sent ?? '0')) throw new S3Error('InvalidArgument', 'The length is not a number.');
  if (bytes > LARGEST_BYTES) throw new S3Error('EntityTooLarge');
  return bytes;
}

function announcedTrailer(request: S3Request, payload: string): DigestAlgorithm | undefined {
  if (
    payload !== 'STREAMING-UNSIGNED-PAYLOAD-TRAILER' &&
    payload !== 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD' &&
    payload !== 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER'
  ) {
    throw new S3Error('NotImplemented', `This store does not know ${payload}.`);
  }
  const trailer = request.header('x-amz-trailer')?.trim().toLowerCase();
  if (payload.endsWith('-TRAILER') !== (trailer !== undefined)) {
    throw new S3Error('InvalidRequest', 'x-amz-trailer and x-amz-content-sha256 contradict each other.');
  }
  return trailer === undefined ? undefined : checksumAlgorithm(trailer);
}

function trailingExpectation(algorithm: DigestAlgorithm, trailers: Map<string, string>): Expectation {
  return {
    algorithm,
    value: decode(algorithm, trailers.get(`x-amz-checksum-${algorithm}`) ?? '', 'InvalidRequest'),
    otherwise: 'BadDigest',
  };
}

function expectations(request: S3Request, payload: string): Expectation[] {
  const expected: Expectation[] = [];
  const md5 = request.header('content-md5');
  if (md5 !== undefined) {
    expected.push({ algorithm: 'md5', value: decode('md5', md5, 'InvalidDigest'), otherwise: 'BadDigest' });
  }
  for (const name of request.headerNames()) {
    if (!name.startsWith('x-amz-checksum-') || NOT_A_CHECKSUM.has(name)) continue;
    const algorithm = checksumAlgorithm(name);
    const value = decode(algorithm, request.header(name) ?? '', 'InvalidRequest');
    expected.push({ algorithm, value, otherwise: 'BadDigest' });
  }
  if (/^[0-9a-f]{64}$/.test(payload)) {
    const value = Buffer.from(payload, 'hex');
    expected.push({ algorithm: 'sha256', value, otherwise: 'XAmzContentSHA256Mismatch' });
  } else if (payload !== 'UNSIGNED-PAYLOAD' && !payload.startsWith('STREAMING-')) {
    throw new S3Error('InvalidArgument', 'x-amz-content-sha256 is neither a hash nor a word known here.');
  }
  return expected;
}

function checksumAlgorithm(header: string): DigestAlgorithm {
  const algorithm = header.replace(/^x-amz-checksum-/, '');
  if (algorithm === 'md5' || !isDigestAlgorithm(algorithm)) {
    throw new S3Error('NotImplemented', `This store does not verify ${header}.`);
  }
  return algorithm;
}

function decode(
  algorithm: DigestAlgorithm,
  base64: string,
  otherwise: 'InvalidDigest' | 'InvalidRequest',
): Buffer {
  const value = decodeDigest(algorithm, base64.trim());
  if (value) return value;
  if (otherwise === 'InvalidDigest') throw new S3Error('InvalidDigest');
  throw new S3Error('InvalidRequest', `The value of x-amz-checksum-${algorithm} is malformed.`);
}
