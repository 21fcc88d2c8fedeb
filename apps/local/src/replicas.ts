import { ReplicaWatch } from '#replica-watch';
import { type Balancer } from './balancer.js';
import { freePorts } from './free-ports.js';
import { Replica } from './replica.js';
import { say } from './terminal.js';

/** Several replicas and the balancer in front of them. */
export class Replicas {
  /** Those that the balancer sends requests to. */
  #serving: readonly Replica[] = [];
  /** These too, and those that are just starting or finishing. */
  readonly #running = new Set<Replica>();
  /** Of every replica there was, by its address: what is logged of it may come late. */
  readonly #ids = new Map<string, string>();
  #isScaling = true;
  /** The latest list that the balancer was given. */
  #given: Promise<void> = Promise.resolve();
  /** One that isn't ready, or hangs, gets nothing until it is well. */
  readonly #watch = new ReplicaWatch({
    onList: (serving) => {
      this.#given = this.balancer.use(serving);
      this.#given.catch((error: unknown) => {
        say(error instanceof Error ? error.message : String(error));
      });
    },
  });

  constructor(
    private readonly balancer: Balancer,
    private readonly environment: NodeJS.ProcessEnv,
  ) {}

  get ids(): string[] {
    return this.#serving.map(({ id }) => id);
  }

  /** Of one of them. */
  get url(): string | undefined {
    return this.#serving[0] && `http://${this.#serving[0].address}`;
  }

  idOf(address: string): string | undefined {
    return this.#ids.get(address);
  }

  /** Resolves when all of them take requests. */
  async start(count: number): Promise<void> {
    this.#serving = await this.#launch(count);
    const addresses = this.#addresses(this.#serving);
    await this.#watch.know(addresses);
    await this.balancer.start(addresses);
    this.#watch.start();
    this.#isScaling = false;
  }

  /**
   * Adds or removes replicas without losing a request; resolves with what was done. Rejects, and leaves those that
   * serve as they are, when one that is added does not start.
   */
  async scale(count: number): Promise<string> {
    if (this.#isScaling)
      throw new Error('It is being started or scaled already; try again when that is done.');
    this.#isScaling = true;
    try {
      const change = count - this.#serving.length;
      say(`Scaling from ${this.#serving.length} to ${count} …`);
      if (change > 0) await this.#add(change);
      if (change < 0) await this.#remove(-change);
      const done = change === 0 ? 'nothing to do' : `${Math.abs(change)} ${change > 0 ? 'added' : 'removed'}`;
      const report = `Scaled to ${this.#serving.length}: ${done} (${this.ids.join(', ')}).`;
      say(report);
      return report;
    } finally {
      this.#isScaling = false;
    }
  }

  /** The balancer first: it takes nothing new, and what it has it needs the replicas for. */
  async stop(): Promise<boolean> {
    this.#watch.stop();
    await this.balancer.stop();
    const ended = await Promise.all([...this.#running].map((replica) => replica.stop()));
    return ended.every(Boolean);
  }

  async #add(count: number): Promise<void> {
    const added = await this.#launch(count);
    try {
      await this.#serve([...this.#serving, ...added]);
    } catch (error) {
      await this.#finish(added);
      throw error;
    }
  }

  async #remove(count: number): Promise<void> {
    const removed = this.#serving.slice(-count);
    await this.#serve(this.#serving.slice(0, -count));
    // nginx takes the shorter list within milliseconds; until then, and for DRAIN_DELAY_MS, they serve.
    await this.#finish(removed);
  }

  async #serve(replicas: readonly Replica[]): Promise<void> {
    try {
      await this.#watch.know(this.#addresses(replicas));
      await this.#given;
    } catch (error) {
      await this.#watch.know(this.#addresses(this.#serving));
      throw error;
    }
    this.#serving = replicas;
  }

  /** All of them take requests, or none is left. */
  async #launch(count: number): Promise<Replica[]> {
    const ports = await freePorts(count);
    const replicas = ports.map(
      (port, index) => new Replica(`replica-${this.#serving.length + index + 1}`, port, this.environment),
    );
    for (const replica of replicas) {
      this.#running.add(replica);
      this.#ids.set(replica.address, replica.id);
    }
    try {
      // One first: what is wrong for all of them is then said once.
      await replicas[0]?.start();
      await Promise.all(replicas.slice(1).map((replica) => replica.start()));
    } catch (error) {
      await this.#finish(replicas);
      throw error;
    }
    return replicas;
  }

  async #finish(replicas: readonly Replica[]): Promise<void> {
    await Promise.all(replicas.map((replica) => replica.finish()));
    for (const replica of replicas) this.#running.delete(replica);
  }

  #addresses(replicas: readonly Replica[]): string[] {
    return replicas.map(({ address }) => address);
  }
}
