import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo } from 'node:net';

/**
 * What a store does to a request: passes it on; answers a status; says nothing at all; breaks off while the
 * body comes; does what was asked, and breaks off instead of saying so; or breaks off behind the head of its
 * answer, or in the midst of its body; or does what was asked, and says so when it is let.
 */
export type Fault =
  | 'pass'
  | number
  | 'hang'
  | 'cut'
  | 'cut-answer'
  | 'cut-head'
  | 'cut-body'
  | { readonly answerAfter: Promise<unknown> };

/** Stands between a replica and its store, and breaks what it is told to. */
export class FaultyStore {
  fault: (request: IncomingMessage) => Fault | Promise<Fault> = () => 'pass';
  readonly seen: string[] = [];
  readonly #server: Server;

  private constructor(private readonly target: URL) {
    this.#server = createServer((incoming, response) => {
      this.seen.push(`${incoming.method} ${incoming.url}`);
      void Promise.resolve(this.fault(incoming)).then((fault) => {
        this.#answer(fault, incoming, response);
      });
    });
  }

  static async start(target: string): Promise<FaultyStore> {
    const store = new FaultyStore(new URL(target));
    await new Promise<void>((resolve) => store.#server.listen(0, '127.0.0.1', resolve));
    return store;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #answer(fault: Fault, incoming: IncomingMessage, response: ServerResponse): void {
    if (fault === 'hang') return;
    if (fault === 'cut') {
      incoming.once('data', () => incoming.socket.destroy());
      return;
    }
    if (typeof fault === 'number') {
      incoming.resume();
      incoming.once('end', () => {
        response.writeHead(fault, { 'Content-Type': 'application/xml' });
        response.end(`<Error><Code>${CODES[fault] ?? 'InternalError'}</Code><Message>no</Message></Error>`);
      });
      return;
    }
    const { hostname, port } = this.target;
    const { method, url: path, headers } = incoming;
    // The Host header goes on as it came, since it is part of what was signed.
    const outgoing = request({ hostname, port, method, path, headers }, (answer) => {
      if (typeof fault === 'object') {
        void fault.answerAfter.then(() => {
          response.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(response);
        });
        return;
      }
      if (fault === 'cut-answer') {
        answer.resume();
        incoming.socket.destroy();
        return;
      }
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      if (fault === 'cut-head') {
        response.flushHeaders();
        setTimeout(() => response.destroy(), 50);
        return;
      }
      if (fault === 'cut-body') answer.once('data', () => setTimeout(() => response.destroy(), 20));
      answer.pipe(response);
    });
    outgoing.on('error', () => incoming.socket.destroy());
    incoming.on('close', () => {
      if (!incoming.complete) outgoing.destroy();
    });
    incoming.pipe(outgoing);
  }
}

const CODES: Record<number, string> = { 403: 'AccessDenied', 500: 'InternalError', 503: 'SlowDown' };
