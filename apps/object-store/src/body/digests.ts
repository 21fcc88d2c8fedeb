import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { Crc32c } from '@aws-crypto/crc32c';

interface Digest {
  update(chunk: Uint8Array): unknown;
  digest(): Buffer;
}

const ALGORITHMS = {
  md5: { bytes: 16, start: () => createHash('md5') },
  sha1: { bytes: 20, start: () => createHash('sha1') },
  sha256: { bytes: 32, start: () => createHash('sha256') },
  crc32: { bytes: 4, start: () => startCrc32() },
  crc32c: { bytes: 4, start: () => startCrc32c() },
} as const satisfies Record<string, { bytes: number; start: () => Digest }>;

export type DigestAlgorithm = keyof typeof ALGORITHMS;

export function isDigestAlgorithm(name: string): name is DigestAlgorithm {
  return Object.hasOwn(ALGORITHMS, name);
}

/** The bytes that this base64 stands for, if they are as many as the algorithm makes. */
export function decodeDigest(algorithm: DigestAlgorithm, base64: string): Buffer | undefined {
  const bytes = Buffer.from(base64, 'base64');
  return bytes.length === ALGORITHMS[algorithm].bytes && bytes.toString('base64') === base64
    ? bytes
    : undefined;
}

/** Several digests of the same bytes, each computed once however many headers ask for it. */
export class Digests {
  private readonly running: ReadonlyMap<DigestAlgorithm, Digest>;
  private readonly finished = new Map<DigestAlgorithm, Buffer>();

  constructor(algorithms: Iterable<DigestAlgorithm>) {
    this.running = new Map(
      [...new Set(algorithms)].map((algorithm) => [algorithm, ALGORITHMS[algorithm].start()]),
    );
  }

  update(chunk: Uint8Array): void {
    for (const digest of this.running.values()) digest.update(chunk);
  }

  /** The same bytes, taken in as they pass. */
  async *through(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
    for await (const chunk of source) {
      this.update(chunk);
      yield chunk;
    }
  }

  /** Call it after the last byte. The algorithm has to be one of those given at first. */
  of(algorithm: DigestAlgorithm): Buffer {
    let value = this.finished.get(algorithm);
    if (!value) {
      const digest = this.running.get(algorithm);
      if (!digest) throw new TypeError(`${algorithm} was not computed`);
      this.finished.set(algorithm, (value = digest.digest()));
    }
    return value;
  }
}

function startCrc32(): Digest {
  let sum = 0;
  return {
    update: (chunk) => (sum = crc32(chunk, sum)),
    digest: () => bigEndian(sum),
  };
}

function startCrc32c(): Digest {
  const sum = new Crc32c();
  return { update: (chunk) => sum.update(chunk), digest: () => bigEndian(sum.digest()) };
}

function bigEndian(sum: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(sum);
  return bytes;
}
