import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { type Bucket } from './harness.js';

/** Stands between a replica and its store: sees what goes through, and can be taken away. */
export class StoreProxy {
  readonly #connections = new Set<Socket>();
  readonly #toStore = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;
  /** What the store has sent, as far as the replica has taken it off the proxy's hands. */
  bytesFromStore = 0;
  connectionsMade = 0;

  private constructor(private readonly target: URL) {}

  static async open(bucket: Bucket): Promise<StoreProxy> {
    const proxy = new StoreProxy(new URL(bucket.endpoint));
    await proxy.up();
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Connections of the replica that are open, idle ones included. */
  get openConnections(): number {
    return this.#connections.size;
  }

  async up(): Promise<void> {
    this.#server = createServer((socket) => {
      this.#join(socket);
    }).listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Breaks every connection and refuses new ones. */
  async down(): Promise<void> {
    this.cut();
    if (!this.#server) return;
    this.#server.close();
    await once(this.#server, 'close');
    this.#server = undefined;
  }

  /** Breaks every connection. */
  cut(): void {
    for (const socket of this.#connections) socket.resetAndDestroy();
  }

  /** Lets nothing more of the store through, on the connections that are open. */
  silence(): void {
    for (const socket of this.#toStore) socket.unpipe();
  }

  #join(replica: Socket): void {
    const store = connect(Number(this.target.port || 80), this.target.hostname);
    this.#connections.add(replica);
    this.#toStore.add(store);
    this.connectionsMade += 1;
    store.on('data', (chunk: Buffer) => {
      this.bytesFromStore += chunk.length;
    });
    replica.pipe(store).pipe(replica);
    for (const [socket, other] of [
      [replica, store],
      [store, replica],
    ] as const) {
      socket.on('error', () => undefined);
      socket.once('close', () => {
        this.#connections.delete(replica);
        this.#toStore.delete(store);
        other.destroy();
      });
    }
  }
}
