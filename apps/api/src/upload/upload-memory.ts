import { Injectable } from '@nestjs/common';
import { setAwakeTimeout } from '#object-store';
import { Config } from '../config.js';
import { Metrics } from '../metrics/metrics.js';
import { Problem } from '../problem/problem.js';

/** Memory granted to one upload. */
export interface MemoryLease {
  /** Gives back all but `bytes`, once an image turns out smaller than its request said. */
  shrinkTo(bytes: number): void;
  release(): void;
}

interface Waiter {
  readonly bytes: number;
  readonly grant: () => void;
}

/**
 * Bounds what all uploads of this process hold in memory. An upload asks for the most it may come to need
 * before it reads a byte: one that grew as it went could wait for others that wait for it.
 * Who comes first is served first, so that a large image isn't passed over for ever.
 */
@Injectable()
export class UploadMemory {
  readonly #maxBytes: number;
  readonly #waitMs: number;
  readonly #waiting: Waiter[] = [];
  #usedBytes = 0;

  constructor(
    config: Config,
    private readonly metrics: Metrics,
  ) {
    this.#maxBytes = config.upload.maxMemoryBytes;
    this.#waitMs = config.upload.waitMs;
  }

  /**
   * Resolves when `bytes` are free; the caller reads nothing meanwhile, which holds its client back.
   *
   * @throws Problem OVERLOADED after the wait that is configured, or the signal's reason.
   */
  async acquire(bytes: number, signal: AbortSignal): Promise<MemoryLease> {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) await this.#wait(bytes, signal);
    else this.#use(bytes);
    let held = bytes;
    const shrinkTo = (rest: number) => {
      this.#use(rest - held);
      held = rest;
      this.#grantNext();
    };
    return {
      shrinkTo,
      release: () => {
        shrinkTo(0);
      },
    };
  }

  #wait(bytes: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (reason: Error) => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        settle();
        reject(reason);
        // Who stood behind may fit where this one did not.
        this.#grantNext();
      };
      const stopTimer = setAwakeTimeout(() => {
        leave(
          new Problem(
            'OVERLOADED',
            'This replica has more uploads than memory for them. Nothing was kept; try again shortly.',
          ),
        );
      }, this.#waitMs);
      const onAbort = () => {
        leave(signal.reason as Error);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      const settle = () => {
        stopTimer();
        signal.removeEventListener('abort', onAbort);
      };
      const waiter = {
        bytes,
        grant: () => {
          settle();
          resolve();
        },
      };
      this.#waiting.push(waiter);
    });
  }

  #grantNext(): void {
    for (let next = this.#waiting[0]; next && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#use(next.bytes);
      next.grant();
    }
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes + bytes <= this.#maxBytes;
  }

  #use(bytes: number): void {
    this.#usedBytes += bytes;
    this.metrics.uploadMemoryBytes.set(this.#usedBytes);
  }
}
