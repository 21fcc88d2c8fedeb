import { ImageError } from './image.js';

/** A walker reads like its format's specification; a bare `yield` in it waits for the next chunk. */
export type Walk<Result = void> = Generator<undefined, Result, undefined>;

const NOTHING = Buffer.alloc(0);
const NEAR = 8;

/**
 * The bytes of a stream in order, each chunk seen once. Every read follows
 * `while (bytes.lacks(n)) yield;` and costs no allocation but what it returns. Skipping never waits
 * and never touches what it skips. What is kept between chunks is the few bytes (`n`, under a
 * hundred) of a read that straddles two of them.
 */
export class ByteReader {
  private chunk: Buffer = NOTHING;
  /** Where reading goes on in the chunk; past its end when bytes to come are already skipped. */
  private offset = 0;
  /** The stream's offset of the chunk's first byte. */
  private start = 0;
  private ended = false;

  get position(): number {
    return this.start + this.offset;
  }

  get received(): number {
    return this.start + this.chunk.length;
  }

  /** Nothing more will come. */
  get isOver(): boolean {
    return this.ended;
  }

  feed(chunk: Uint8Array): void {
    const next = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.chunk = this.chunk.length === 0 ? next : Buffer.concat([this.chunk, next]);
  }

  /** Lets go of the chunk, which is its owner's again, and keeps a copy of what was not read. */
  release(): void {
    const ahead = this.offset - this.chunk.length;
    if (ahead >= 0) {
      this.start += this.chunk.length;
      this.offset = ahead;
      this.chunk = NOTHING;
    } else {
      this.start += this.offset;
      this.chunk = Buffer.from(this.chunk.subarray(this.offset));
      this.offset = 0;
    }
  }

  end(): void {
    this.ended = true;
  }

  /** Whether fewer than `n` bytes are at hand; throws when no more will come. */
  lacks(n: number): boolean {
    if (this.has(n)) return false;
    if (this.ended) throw this.cutOff();
    return true;
  }

  /** Whether `n` bytes are at hand. */
  has(n: number): boolean {
    return this.offset + n <= this.chunk.length;
  }

  cutOff(): ImageError {
    return new ImageError(
      'CORRUPT_IMAGE',
      `The image is cut off: it ends after ${this.received} bytes, before it is complete. ` +
        'Send the whole file.',
    );
  }

  u8(): number {
    return this.chunk.readUInt8(this.offset++);
  }

  /** Big-endian, as every format but RIFF, GIF and half of TIFF has it. */
  u16(): number {
    this.offset += 2;
    return this.chunk.readUInt16BE(this.offset - 2);
  }

  u32(): number {
    this.offset += 4;
    return this.chunk.readUInt32BE(this.offset - 4);
  }

  u32le(): number {
    this.offset += 4;
    return this.chunk.readUInt32LE(this.offset - 4);
  }

  /** An unsigned integer of 0, 1, 2, 4 or 8 bytes; past 2^53 it is inexact, and larger than any file. */
  uint(n: number): number {
    if (n === 8) return this.u32() * 2 ** 32 + this.u32();
    return n === 0 ? 0 : this.take(n).readUIntBE(0, n);
  }

  /** The four characters by which most formats name their pieces. */
  name(): string {
    return String.fromCharCode(this.u8(), this.u8(), this.u8(), this.u8());
  }

  /** A view, good until the next `yield`. */
  take(n: number): Buffer {
    const bytes = this.peek(n);
    this.offset += n;
    return bytes;
  }

  peek(n: number): Buffer {
    return this.chunk.subarray(this.offset, this.offset + n);
  }

  skip(n: number): void {
    this.offset += n;
  }

  skipTo(position: number): void {
    this.offset = position - this.start;
  }

  /** Moves past all that is at hand. */
  skipAll(): void {
    this.offset = Math.max(this.offset, this.chunk.length);
  }

  /** The byte `ahead` of the next one, when it is at hand. */
  at(ahead: number): number | undefined {
    return this.chunk[this.offset + ahead];
  }

  /**
   * Moves past the next pair at hand of `first` and a byte that fits, and answers that byte. Without one
   * it moves past everything but a last `first`, whose other half is still to come.
   */
  seekPair(first: number, fits: (second: number) => boolean): number | undefined {
    const { chunk } = this;
    const last = chunk.length - 1;
    let at = this.offset;
    for (;;) {
      // A native search is the fastest by far, but each call is dear: hits that are near are found here.
      const near = at + NEAR < last ? at + NEAR : last;
      while (at < near && chunk[at] !== first) at++;
      if (at >= near) {
        at = chunk.indexOf(first, at);
        if (at < 0 || at === last) break;
      }
      const second = chunk.readUInt8(++at);
      if (fits(second)) {
        this.offset = at + 1;
        return second;
      }
    }
    this.offset = Math.max(this.offset, at < 0 ? chunk.length : at);
    return undefined;
  }
}
