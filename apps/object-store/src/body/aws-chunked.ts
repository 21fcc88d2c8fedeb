import { createHash, createHmac, type Hash } from 'node:crypto';
import { S3Error } from '../s3-error.js';
import { sameSignature, type VerifiedSignature } from '../signature/signature.js';

/** Longest line of the framing, in bytes: a chunk's size and signature, or one trailing header. */
const LINE_BYTES = 1024;
const TRAILERS = 16;
const SHA256_OF_NOTHING = createHash('sha256').digest('hex');

export interface ChunkedFormat {
  /** Each chunk carries a signature that builds on the one before, the first on the request's. */
  readonly signature: VerifiedSignature | undefined;
  /** Headers follow the last chunk. */
  readonly trailers: boolean;
}

/**
 * Takes the framing of `Content-Encoding: aws-chunked` off a body. Yields bytes as they come, before
 * their chunk's signature is known to be right: nothing may be kept until the iteration has ended.
 * The trailing headers are put into `trailers`, names in lower case.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
 */
export async function* decodeAwsChunked(
  source: AsyncIterable<Buffer>,
  format: ChunkedFormat,
  trailers: Map<string, string>,
): AsyncGenerator<Buffer, void> {
  const frame = new Frame(source);
  try {
    yield* decode(frame, format, trailers);
  } finally {
    await frame.close();
  }
}

async function* decode(
  frame: Frame,
  format: ChunkedFormat,
  trailers: Map<string, string>,
): AsyncGenerator<Buffer, void> {
  const chain = format.signature && new SignatureChain(format.signature);
  for (;;) {
    const [size, claimed] = parseChunkHeader(await frame.line());
    const hash = chain && createHash('sha256');
    for await (const bytes of frame.take(size)) {
      hash?.update(bytes);
      yield bytes;
    }
    if (hash) chain.verifyChunk(hash, claimed);
    if (size === 0) break;
    await frame.expectLineEnd();
  }
  if (format.trailers) await readTrailers(frame, chain, trailers);
  else await frame.expectLineEnd();
  await frame.expectEnd();
}

async function readTrailers(
  frame: Frame,
  chain: SignatureChain | undefined,
  trailers: Map<string, string>,
): Promise<void> {
  let signed = '';
  let claimed: string | undefined;
  for (let line = await frame.line(); line !== ''; line = await frame.line()) {
    const colon = line.indexOf(':');
    if (colon < 1 || trailers.size >= TRAILERS) throw malformed();
    const name = line.slice(0, colon).trim().toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (name === 'x-amz-trailer-signature') {
      claimed = value;
    } else {
      signed += `${name}:${value}\n`;
      trailers.set(name, value);
    }
  }
  chain?.verifyTrailers(signed, claimed);
}

function parseChunkHeader(line: string): [size: number, signature: string | undefined] {
  const match = /^([0-9a-fA-F]{1,12})(?:;chunk-signature=([0-9a-f]{64}))?$/.exec(line);
  if (!match?.[1]) throw malformed();
  return [Number.parseInt(match[1], 16), match[2]];
}

function malformed(): S3Error {
  return new S3Error('InvalidRequest', 'The aws-chunked framing is malformed.');
}

class SignatureChain {
  private previous: string;

  constructor(private readonly seed: VerifiedSignature) {
    this.previous = seed.signature;
  }

  verifyChunk(hash: Hash, claimed: string | undefined): void {
    this.verify('AWS4-HMAC-SHA256-PAYLOAD', `${SHA256_OF_NOTHING}\n${hash.digest('hex')}`, claimed);
  }

  verifyTrailers(trailers: string, claimed: string | undefined): void {
    this.verify('AWS4-HMAC-SHA256-TRAILER', createHash('sha256').update(trailers).digest('hex'), claimed);
  }

  private verify(kind: string, hashes: string, claimed: string | undefined): void {
    const { date, scope, signingKey } = this.seed;
    const expected = createHmac('sha256', signingKey)
      .update(`${kind}\n${date}\n${scope}\n${this.previous}\n${hashes}`)
      .digest('hex');
    if (!claimed || !sameSignature(claimed, expected)) throw new S3Error('SignatureDoesNotMatch');
    this.previous = expected;
  }
}

/** Reads lines and counted bytes off a stream; holds no more than what came last. */
class Frame {
  private readonly source: AsyncIterator<Buffer>;
  private rest: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.source = source[Symbol.asyncIterator]();
  }

  /** Without its CRLF. */
  async line(): Promise<string> {
    let line = '';
    for (;;) {
      const end = this.rest.indexOf('\n');
      line += this.rest.toString('latin1', 0, end === -1 ? undefined : end + 1);
      if (line.length > LINE_BYTES) throw malformed();
      if (end !== -1) {
        this.rest = this.rest.subarray(end + 1);
        if (!line.endsWith('\r\n')) throw malformed();
        return line.slice(0, -2);
      }
      await this.read();
    }
  }

  async *take(count: number): AsyncGenerator<Buffer, void> {
    for (let left = count; left > 0;) {
      if (this.rest.length === 0) await this.read();
      const bytes = this.rest.subarray(0, left);
      this.rest = this.rest.subarray(bytes.length);
      left -= bytes.length;
      yield bytes;
    }
  }

  async expectLineEnd(): Promise<void> {
    if ((await this.line()) !== '') throw malformed();
  }

  async expectEnd(): Promise<void> {
    if (this.rest.length > 0) throw malformed();
    const next = await this.source.next();
    if (!next.done) throw malformed();
  }

  /** Lets go of the stream, wherever it stands. */
  async close(): Promise<void> {
    await this.source.return?.();
  }

  private async read(): Promise<void> {
    const next = await this.source.next();
    if (next.done) throw new S3Error('IncompleteBody');
    this.rest = next.value;
  }
}
