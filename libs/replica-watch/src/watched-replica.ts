import { get } from 'node:http';
import { connect } from 'node:net';

/**
 * `new`: it has not answered yet. `gone`: nobody listens there. `unready`: it says that it can't serve, as when the store is
 * away. `draining`: it says that it is about to end. `hung`: it leaves UNANSWERED asks in a row without an answer.
 */
export type Status = 'new' | 'ready' | 'unready' | 'hung' | 'draining' | 'gone';

/** Fewer, and a replica that is merely busy loses its turn. */
const UNANSWERED = 3;
/** An answer that comes late is one all the same; one that comes later than this is no use. */
const GIVE_UP_MS = 2_000;
/** Of terminus's details. */
const MAX_ANSWER_BYTES = 64 * 1024;

/** A replica as it is seen from outside: by what it answers to /health/ready. */
export class WatchedReplica {
  status: Status = 'new';
  /** When it last did, by performance.now(). */
  answeredAt = -Infinity;
  #unanswered = 0;

  constructor(
    /** As LB_REPLICAS names it, with its options. */
    readonly entry: string,
    /** It expects every connection to begin with a PROXY header. */
    private readonly proxyProtocol: boolean,
    private readonly onChange: (replica: WatchedReplica, before: Status) => void,
  ) {}

  /** Asks once more, whether or not the asks of before were answered; resolves when it was, or when it won't be. */
  async ask(): Promise<void> {
    if (this.#unanswered >= UNANSWERED) this.#become('hung');
    this.#unanswered += 1;
    const status = await this.#answer();
    if (status === undefined) return;
    this.#unanswered = 0;
    this.answeredAt = performance.now();
    this.#become(status);
  }

  #become(status: Status): void {
    if (status === this.status) return;
    const before = this.status;
    this.status = status;
    this.onChange(this, before);
  }

  /** Resolves with what it says of itself, or nothing if it doesn't. */
  #answer(): Promise<Status | undefined> {
    const [address = ''] = this.entry.split(' ');
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/[[\]]/g, '');
    const port = Number(address.slice(colon + 1));
    return new Promise((resolve) => {
      // A connection of its own: a kept one would not tell that nobody listens any more.
      const request = get({
        path: '/health/ready',
        headers: { Host: 'naru' },
        createConnection: () => {
          const socket = connect(port, host);
          if (this.proxyProtocol) socket.write('PROXY UNKNOWN\r\n');
          return socket;
        },
      });
      const timer = setTimeout(() => request.destroy(), GIVE_UP_MS);
      request.once('close', () => {
        clearTimeout(timer);
        resolve(undefined);
      });
      request.on('error', ({ code }: NodeJS.ErrnoException) => {
        resolve(code === 'ECONNREFUSED' ? 'gone' : undefined);
      });
      request.once('response', (response) => {
        if (response.statusCode === 200) {
          response.resume();
          resolve('ready');
          return;
        }
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
          if (body.length > MAX_ANSWER_BYTES) response.destroy();
        });
        response.once('close', () => resolve(isDraining(body) ? 'draining' : 'unready'));
      });
    });
  }
}

/** By the details of @nestjs/terminus. */
function isDraining(body: string): boolean {
  try {
    const { details } = JSON.parse(body) as { details?: { replica?: { message?: unknown } } };
    return details?.replica?.message === 'draining';
  } catch {
    return false;
  }
}
