import { setTimeout as sleep } from 'node:timers/promises';
import { type Server } from 'node:http';
import { Injectable, Logger } from '@nestjs/common';
import { Config } from '../config.js';
import { ImageReceiver } from '../upload/image-receiver.js';

/** Between two sweeps of connections that have become idle. */
const SWEEP_MS = 50;

/**
 * How a replica stops without losing a request: it says that it isn't ready, waits until the balancer has
 * noticed, finishes what is in flight, and aborts only what outlasts the grace period.
 */
@Injectable()
export class Drain {
  readonly #logger = new Logger('Drain');
  #isDraining = false;

  constructor(
    private readonly config: Config,
    private readonly receiver: ImageReceiver,
  ) {}

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Resolves with whether every request could be finished, within SHUTDOWN_TIMEOUT_MS and a little for cleaning up. */
  async run(server: Server): Promise<boolean> {
    const { delayMs, timeoutMs } = this.config.drain;
    const started = performance.now();
    const graceIsOver = AbortSignal.timeout(timeoutMs);

    this.#isDraining = true;
    this.#logger.log({ msg: 'draining: not ready, still serving', delayMs });
    // A connection that is kept alive would bring the next request here instead of to another replica.
    server.prependListener('request', (_request, response) => response.setHeader('Connection', 'close'));
    await sleep(delayMs);

    this.#logger.log('draining: listener closed, finishing requests in flight');
    const closed = new Promise<true>((resolve) =>
      server.close(() => {
        resolve(true);
      }),
    );
    // Node closes a connection that becomes idle after close() only when its keep-alive ends.
    const sweep = setInterval(() => {
      server.closeIdleConnections();
    }, SWEEP_MS);
    const isClean = await Promise.race([closed, over(graceIsOver)]);
    clearInterval(sweep);

    if (!isClean) {
      const cut = await this.receiver.abortAll();
      this.#logger.error({ msg: 'grace period over: requests cut', uploads: cut });
      server.closeAllConnections();
    }
    this.#logger.log({ msg: 'drained', clean: isClean, durationMs: Math.round(performance.now() - started) });
    return isClean;
  }
}

function over(signal: AbortSignal): Promise<false> {
  return new Promise((resolve) => {
    signal.addEventListener(
      'abort',
      () => {
        resolve(false);
      },
      { once: true },
    );
  });
}
