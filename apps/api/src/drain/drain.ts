import { setTimeout as sleep } from 'node:timers/promises';
import { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Socket } from 'node:net';
import { Injectable, Logger } from '@nestjs/common';
import { Config } from '../config.js';
import { ImageReceiver } from '../upload/image-receiver.js';

// Between two sweeps of connections that have become idle.
const SWEEP_MS = 50;
// A connection that has not yet made a request may still be about to.
const SILENCE_MS = 1_000;
// A store that hangs must not hold up the end.
const CLEANUP_MS = 3_000;
// For the answers of uploads that were cut to reach their clients.
const LAST_WORDS_MS = 500;

/**
 * How a replica stops without losing a request: it says that it isn't ready, waits until the balancer has
 * noticed, finishes what is in flight, and aborts only what outlasts the grace period.
 */
@Injectable()
export class Drain {
  readonly #logger = new Logger('Drain');
  readonly #unanswered = new Set<ServerResponse>();
  /** Connections that have not yet made a request, and when the latest byte of each was noticed. */
  readonly #strangers = new Map<Socket, { bytes: number; at: number }>();
  #isDraining = false;

  constructor(
    private readonly config: Config,
    private readonly receiver: ImageReceiver,
  ) {}

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Node counts a connection that has never made a request as busy, and one that awaits its PROXY header not at all. */
  watch(server: Server): void {
    server.on('connection', (socket: Socket) => {
      this.#strangers.set(socket, { bytes: -1, at: 0 });
      socket.once('close', () => this.#strangers.delete(socket));
    });
  }

  /** Express middleware that knows what is in flight. */
  readonly track = (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
    this.#strangers.delete(request.socket);
    this.#unanswered.add(response);
    response.once('close', () => this.#unanswered.delete(response));
    if (this.#isDraining) closeAfter(response);
    next();
  };

  /** Resolves with whether every request could be finished, within SHUTDOWN_TIMEOUT_MS and a little for cleaning up. */
  async run(server: Server): Promise<boolean> {
    const { delayMs, timeoutMs } = this.config.drain;
    const started = performance.now();
    const graceIsOver = AbortSignal.timeout(timeoutMs);

    this.#isDraining = true;
    this.#logger.log({ msg: 'draining: not ready, still serving', delayMs });
    for (const response of this.#unanswered) closeAfter(response);
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
      this.#closeSilentStrangers();
    }, SWEEP_MS);
    const isClean = await Promise.race([closed, over(graceIsOver)]);
    clearInterval(sweep);

    if (!isClean) {
      const cut = await Promise.race([this.receiver.abortAll(), sleep(CLEANUP_MS, 'not all cleaned up')]);
      this.#logger.error({ msg: 'grace period over: requests cut', uploads: cut });
      await Promise.race([closed, sleep(LAST_WORDS_MS)]);
      server.closeAllConnections();
      for (const socket of this.#strangers.keys()) socket.destroy();
    }
    this.#logger.log({ msg: 'drained', clean: isClean, durationMs: Math.round(performance.now() - started) });
    return isClean;
  }

  #closeSilentStrangers(): void {
    const now = performance.now();
    for (const [socket, latest] of this.#strangers) {
      if (socket.bytesRead !== latest.bytes)
        this.#strangers.set(socket, { bytes: socket.bytesRead, at: now });
      else if (now - latest.at >= SILENCE_MS) socket.destroy();
    }
  }
}

/** A connection that is kept alive would bring its next request here instead of to another replica. */
function closeAfter(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader('Connection', 'close');
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
