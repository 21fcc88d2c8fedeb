import { type Status, WatchedReplica } from './watched-replica.js';
import { whoServes } from './replica-list.js';

/** With three asks that go unanswered, a replica that hangs is found out within 2 s. */
const ASK_EVERY_MS = 500;
/** For replicas that are new to answer, before it is said who serves. */
const FIRST_ANSWER_MS = 1_000;

/** What became of one replica. */
export interface Change {
  readonly replica: string;
  readonly from: Status;
  readonly to: Status;
}

/** Asks replicas whether they are ready, twice a second, and says who is to get requests whenever that changes. */
export class ReplicaWatch {
  #replicas: readonly WatchedReplica[] = [];
  #timer: NodeJS.Timeout | undefined;
  #latest = '';

  constructor(
    private readonly listeners: {
      /** Entries as LB_REPLICAS has them; never none. */
      readonly onList: (serving: readonly string[]) => void;
      readonly onChange?: (change: Change) => void;
    },
    /** Replicas expect every connection to begin with a PROXY header. */
    private readonly proxyProtocol = false,
  ) {}

  /** Begins; `know` comes before. */
  start(): void {
    this.#timer = setInterval(() => {
      for (const replica of this.#replicas) void replica.ask();
    }, ASK_EVERY_MS);
    this.#tell();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Who is to get requests, of those that are known. */
  get serving(): readonly string[] {
    return whoServes(this.#replicas);
  }

  /**
   * From now on these are the replicas, as LB_REPLICAS names them. Resolves when those that are new have answered, or have
   * had their time.
   */
  async know(entries: readonly string[]): Promise<void> {
    const before = new Map(this.#replicas.map((replica) => [replica.entry, replica]));
    const added: WatchedReplica[] = [];
    this.#replicas = entries.map((entry) => {
      const known = before.get(entry);
      if (known) return known;
      const replica = new WatchedReplica(entry, this.proxyProtocol, this.#changed);
      added.push(replica);
      return replica;
    });
    this.#tell();
    if (added.length === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const time = new Promise((resolve) => (timer = setTimeout(resolve, FIRST_ANSWER_MS)));
    await Promise.race([Promise.all(added.map((replica) => replica.ask())), time]);
    clearTimeout(timer);
  }

  readonly #changed = (replica: WatchedReplica, from: Status): void => {
    // One that is no longer known may still answer.
    if (!this.#replicas.includes(replica)) return;
    this.listeners.onChange?.({ replica: replica.entry, from, to: replica.status });
    this.#tell();
  };

  #tell(): void {
    const { serving } = this;
    const list = serving.join(', ');
    if (this.#timer === undefined || list === '' || list === this.#latest) return;
    this.#latest = list;
    this.listeners.onList(serving);
  }
}
