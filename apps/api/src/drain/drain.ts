import { setTimeout as sleep } from 'node:timers/promises';
import { type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Socket } from 'node:net';
import { Injectable, Logger } from '@nestjs/common';
import { Config } from '../config.js';
import { ImageReceiver, type UploadProgress } from '../upload/image-receiver.js';

// Between two sweeps of connections that have become idle.
const SWEEP_MS = 50;
// A connection without a request in flight may still be about to make one, if its bytes come, and for so long in all.
const SILENCE_MS = 1_000;
const LONGEST_HEAD_MS = 5_000;
// A store that hangs must not hold up the end.
const CLEANUP_MS = 3_000;
// For the answers of uploads that were cut to reach their clients.
const LAST_WORDS_MS = 500;

/** A connection without a request in flight: since when, and how many bytes of it were read when the latest came. */
interface Idle {
  readonly since: number;
  readonly bytes: number;
  readonly at: number;
}

interface Unanswered {
  readonly request: IncomingMessage;
  readonly since: number;
}

/** Of an upload: how many images of it have begun, and how many bytes of its body have come. */
interface RequestInFlight extends Partial<UploadProgress> {
  readonly requestId: string;
  readonly method: string;
  readonly path: string;
  readonly ageMs: number;
}

/**
 * How a replica stops without losing a request: it says that it isn't ready, waits until the balancer has
 * noticed, finishes what is in flight, and aborts only what outlasts the grace period.
 */
@Injectable()
export class Drain {
  readonly #logger = new Logger('Drain');
  readonly #unanswered = new Map<ServerResponse, Unanswered>();
  /** Every connection; undefined: it was not seen idle. */
  readonly #connections = new Map<Socket, Idle | undefined>();
  #isDraining = false;

  constructor(
    private readonly config: Config,
    private readonly receiver: ImageReceiver,
  ) {}

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /**
   * Node counts a connection as busy that has never made a request, that is in the middle of a head, or whose last body has
   * never come; and one that awaits its PROXY header not at all.
   */
  watch(server: Server): void {
    server.on('connection', (socket: Socket) => {
      this.#connections.set(socket, undefined);
      socket.once('close', () => this.#connections.delete(socket));
    });
  }

  /** Express middleware that knows what is in flight. */
  readonly track = (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
    this.#unanswered.set(response, { request, since: performance.now() });
    response.once('close', () => this.#unanswered.delete(response));
    if (this.#isDraining) closeAfter(response);
    next();
  };

  /** What is in flight, one entry for each request, as the log tells it. */
  get inFlight(): RequestInFlight[] {
    return [...this.#unanswered].map((entry) => this.#describe(...entry));
  }

  /** Resolves with whether every request could be finished, within SHUTDOWN_TIMEOUT_MS and a little for cleaning up. */
  async run(server: Server): Promise<boolean> {
    const { delayMs, timeoutMs } = this.config.drain;
    const phase = stopwatch();
    const all = stopwatch();
    const graceIsOver = sleep(timeoutMs, false as const, { ref: false });

    this.#isDraining = true;
    this.#logger.log({ msg: 'draining: not ready, still serving', delayMs });
    for (const response of this.#unanswered.keys()) closeAfter(response);
    await sleep(delayMs);
    const servingMs = phase();

    this.#logger.log({
      msg: 'draining: listener closed, finishing requests in flight',
      servingMs,
      inFlight: this.#unanswered.size,
    });
    const closed = new Promise<true>((resolve) =>
      server.close(() => {
        resolve(true);
      }),
    );
    // Node closes a connection that becomes idle after close() only when its keep-alive ends.
    const sweep = setInterval(() => {
      server.closeIdleConnections();
      this.#closeSilent();
    }, SWEEP_MS);
    const isClean = await Promise.race([closed, graceIsOver]);
    clearInterval(sweep);
    const finishingMs = phase();

    if (!isClean) await this.#cut(server, closed);
    this.#logger.log({
      msg: 'drained',
      clean: isClean,
      servingMs,
      finishingMs,
      ...(!isClean && { cuttingMs: phase() }),
      durationMs: all(),
    });
    return isClean;
  }

  async #cut(server: Server, closed: Promise<true>): Promise<void> {
    this.#logger.warn({ msg: 'draining: grace period over, cutting', inFlight: this.#unanswered.size });
    const unfinished = [...this.#unanswered].map((entry) => ({
      response: entry[0],
      is: this.#describe(...entry),
    }));
    const isClear = await Promise.race([this.receiver.abortAll().then(() => true), sleep(CLEANUP_MS, false)]);
    await Promise.race([closed, sleep(LAST_WORDS_MS)]);
    server.closeAllConnections();
    for (const socket of this.#connections.keys()) socket.destroy();

    // One may have come to its end by itself at the very last.
    const cut = unfinished.filter(
      ({ response }) => !(response.writableFinished && response.statusCode < 400),
    );
    for (const { is } of cut) this.#logger.error({ msg: 'request cut', ...is });
    const uploads = cut.filter(({ is }) => is.images !== undefined).length;
    this.#logger.error({
      msg: 'grace period over: requests cut',
      uploads,
      others: cut.length - uploads,
      // Else something of them may be left in the bucket: the store was too slow to say.
      clear: isClear,
    });
  }

  #describe(response: ServerResponse, { request, since }: Unanswered): RequestInFlight {
    return {
      requestId: String(response.getHeader('X-Request-Id')),
      method: request.method ?? '',
      // Express cuts `url` for routers; a query may hold what is nobody's business.
      path: ((request as { originalUrl?: string }).originalUrl ?? request.url ?? '').replace(/\?.*$/s, ''),
      ageMs: Math.round(performance.now() - since),
      ...this.receiver.progressOf(response),
    };
  }

  #closeSilent(): void {
    const now = performance.now();
    const busy = new Set([...this.#unanswered.values()].map(({ request }) => request.socket));
    for (const [socket, idle = { since: now, bytes: -1, at: now }] of this.#connections) {
      const { bytesRead: bytes } = socket;
      if (busy.has(socket)) this.#connections.set(socket, undefined);
      else if (now - idle.at >= SILENCE_MS || now - idle.since >= LONGEST_HEAD_MS) socket.destroy();
      else this.#connections.set(socket, { ...idle, bytes, at: bytes === idle.bytes ? idle.at : now });
    }
  }
}

/** A connection that is kept alive would bring its next request here instead of to another replica. */
function closeAfter(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader('Connection', 'close');
}

/** Milliseconds since it was asked last. */
function stopwatch(): () => number {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const ms = Math.round(now - last);
    last = now;
    return ms;
  };
}
