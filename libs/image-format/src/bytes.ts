import { ImageError } from './image.js';

/** A walker reads like its format's specification; a bare `yield` in it waits for the next chunk. */
export type Walk<Result = void> = Generator<undefined, Result, undefined>;

/**
 * The bytes of a stream in order, each chunk seen once. Every read follows
 * `while (bytes.lacks(n)) yield;` and costs no allocation but what it returns. Skipping never waits
 * and never touches what it skips. What is kept between chunks is the few bytes (`n`, under a
 * hundred) of a read that straddles two of them.
 */
export class ByteReader {
  private chunk: Buffer = Buffer.alloc(0);
  /** Where reading goes on in the chunk; past its end when bytes to come are already skipped. */
  private at = 0;
  /** The stream's offset of the chunk's first byte. */
  private start = 0;
  private ended = false;

  get position(): number {
    return this.start + this.at;
  }

  /** Nothing is at hand. */
  get isEmpty(): boolean {
    return this.at >= this.chunk.length;
  }

  /** Nothing more will come. */
  get isOver(): boolean {
    return this.ended;
  }

  feed(next: Uint8Array): void {
    const chunk = Buffer.from(next.buffer, next.byteOffset, next.byteLength);
    const unread = this.chunk.subarray(this.at);
    this.start += this.chunk.length - unread.length;
    this.at = Math.max(0, this.at - this.chunk.length);
    this.chunk = unread.length === 0 ? chunk : Buffer.concat([unread, chunk]);
  }

  end(): void {
    this.ended = true;
  }

  /** Whether fewer than `n` bytes are at hand; throws when no more will come. */
  lacks(n: number): boolean {
    if (this.at + n <= this.chunk.length) return false;
    if (!this.ended) return true;
    throw new ImageError(
      'CORRUPT_IMAGE',
      `The image is cut off: it ends after ${this.start + this.chunk.length} bytes, before it is complete. ` +
        'Send the whole file.',
    );
  }

  u8(): number {
    return this.chunk.readUInt8(this.at++);
  }

  /** Big-endian, as every format but RIFF, GIF and half of TIFF has it. */
  u16(): number {
    this.at += 2;
    return this.chunk.readUInt16BE(this.at - 2);
  }

  u32(): number {
    this.at += 4;
    return this.chunk.readUInt32BE(this.at - 4);
  }

  /** An unsigned integer of 0, 1, 2, 4 or 8 bytes; past 2^53 it is inexact, and larger than any file. */
  uint(n: number): number {
    if (n === 8) return this.u32() * 2 ** 32 + this.u32();
    return n === 0 ? 0 : this.take(n).readUIntBE(0, n);
  }

  ascii(n: number): string {
    return this.take(n).toString('latin1');
  }

  /** A view, good until the next `yield`. */
  take(n: number): Buffer {
    const bytes = this.peek(n);
    this.at += n;
    return bytes;
  }

  peek(n: number): Buffer {
    return this.chunk.subarray(this.at, this.at + n);
  }

  skip(n: number): void {
    this.at += n;
  }

  skipTo(position: number): void {
    this.at = position - this.start;
  }

  /** Moves past all that is at hand. */
  skipAll(): void {
    this.at = Math.max(this.at, this.chunk.length);
  }

  /** Moves to the next byte of this value at hand and answers whether there is one; else past them all. */
  seek(value: number): boolean {
    const found = this.chunk.indexOf(value, this.at);
    if (found < 0) this.skipAll();
    else this.at = found;
    return found >= 0;
  }
}
