import { setTimeout as sleep } from 'node:timers/promises';
import { Child } from './child.js';
import { say } from './terminal.js';

/** For a replica that ends again and again. */
const START_EVERY_MS = 1_000;
/** Past its own SHUTDOWN_TIMEOUT_MS, a replica cleans up for up to 3.5 s. */
const CLEANUP_MS = 5_000;

/** One of several processes of the API, on a port of its own. Once it runs it is kept running. */
export class Replica {
  #child: Child;
  #startedAt = 0;
  #isWanted = true;

  constructor(
    readonly id: string,
    private readonly port: number,
    private readonly environment: NodeJS.ProcessEnv,
  ) {
    this.#child = this.#newChild();
  }

  /** As LB_REPLICAS names it. */
  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Resolves when it takes requests; rejects when it ends before. */
  async start(): Promise<void> {
    this.#startedAt = performance.now();
    await this.#child.start({
      ...this.environment,
      HOST: '127.0.0.1',
      PORT: String(this.port),
      REPLICA_ID: this.id,
    });
  }

  /** Resolves when what it had is finished; nothing new may come to it. */
  async finish(): Promise<void> {
    this.#isWanted = false;
    await this.#child.stop(Number(this.environment['SHUTDOWN_TIMEOUT_MS']) + CLEANUP_MS);
  }

  /** Resolves soon, with whether it had nothing to cut: for when nobody is left to answer. */
  async stop(): Promise<boolean> {
    this.#isWanted = false;
    return this.#child.stop();
  }

  #newChild(): Child {
    const child = new Child(this.id, 'api', true);
    child.onExit(() => void this.#startAgain());
    return child;
  }

  /** nginx finds it again by itself: the port stays. */
  async #startAgain(): Promise<void> {
    while (this.#isWanted) {
      say(`${this.id} has ended; starting it again.`);
      await sleep(Math.max(0, this.#startedAt + START_EVERY_MS - performance.now()));
      // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- it may have been stopped meanwhile
      if (!this.#isWanted) return;
      this.#child = this.#newChild();
      try {
        await this.start();
        return;
      } catch {
        // What it wrote says why.
      }
    }
  }
}
