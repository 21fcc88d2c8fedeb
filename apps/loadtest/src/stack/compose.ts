import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../../local/src/free-ports.js';
import { RunFailed } from '../problem.js';
import { type Container, cpuSeconds, docker } from './docker.js';
import { type CpuUse, type Stack, untilServed } from './stack.js';

/** The compose file as a project of its own, on a port of its own; it goes, images and all, when the run ends. */
export class ComposeStack implements Stack {
  readonly kind = 'compose';
  readonly #project = `naru-loadtest-${process.pid}`;
  #port = 0;
  #up: Promise<unknown> | undefined;
  readonly #upEnds = new AbortController();
  #replicas: Container[] = [];
  #balancer: Container | undefined;
  #store: Container | undefined;
  #selected: Container[] = [];
  #killed: Container | undefined;

  constructor(
    /** In cores; null: none. */
    readonly cpusPerReplica: number | null,
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(replicas: number): Promise<void> {
    this.#port = await freePort();
    this.#up = this.#compose(
      ['up', '--detach', '--build', '--wait', '--scale', `api=${replicas}`],
      this.#upEnds.signal,
    );
    await this.#up;
    const of = (service: string) => (container: Container) =>
      container.Config.Labels['com.docker.compose.service'] === service;
    const ids = (await this.#compose(['ps', '--all', '--quiet'])).trim().split('\n');
    const all = JSON.parse(await docker(['inspect', ...ids])) as Container[];
    this.#replicas = all.filter(of('api'));
    this.#balancer = all.find(of('nginx'));
    this.#store = all.find(of('minio'));
    this.#selected = this.#replicas;
    await untilServed(this.url, this.#replicas.map(idOf));
  }

  async limit(): Promise<void> {
    if (this.cpusPerReplica === null) return;
    await docker(['update', '--cpus', String(this.cpusPerReplica), ...this.#replicas.map(({ Id }) => Id)]);
  }

  async select(count: number): Promise<void> {
    const selected = this.#replicas.slice(0, count);
    const others = this.#replicas.slice(count);
    await this.#signal(
      'CONT',
      selected.filter((replica) => !this.#selected.includes(replica)),
    );
    await this.#signal(
      'STOP',
      others.filter((replica) => this.#selected.includes(replica)),
    );
    this.#selected = selected;
    await untilServed(this.url, selected.map(idOf));
  }

  async cpu(): Promise<CpuUse> {
    const use = async (container: Container | undefined): Promise<number | null> =>
      container === undefined ? null : cpuSeconds(container.Id).catch(() => null);
    const [balancer = null, store = null, ...replicas] = await Promise.all(
      [this.#balancer, this.#store, ...this.#selected].map(use),
    );
    const known = this.#selected.flatMap((replica, index): [string, number][] => {
      const seconds = replicas[index];
      return seconds == null ? [] : [[idOf(replica), seconds]];
    });
    return { balancer, store, replicas: Object.fromEntries(known) };
  }

  async kill(): Promise<string> {
    this.#killed = this.#selected.at(-1);
    if (this.#killed === undefined) throw new RunFailed('There is no replica to kill.');
    await this.#signal('KILL', [this.#killed]);
    return idOf(this.#killed);
  }

  async revive(): Promise<void> {
    if (this.#killed !== undefined) await docker(['start', this.#killed.Id]);
  }

  async stop(): Promise<void> {
    if (this.#up === undefined) return;
    // It would go on to start what we take down.
    this.#upEnds.abort();
    await this.#up.catch(() => undefined);
    this.#up = undefined;
    // A process that is stopped hears nothing else.
    const parked = this.#replicas.filter((replica) => !this.#selected.includes(replica));
    await this.#signal('CONT', parked).catch(() => undefined);
    const down = ['down', '--volumes', '--remove-orphans', '--rmi', 'local', '--timeout', '3'];
    // What an `up` that was cut short has Docker make may come a moment later.
    await this.#compose(down).catch(() => sleep(1_000).then(() => this.#compose(down)));
  }

  async #signal(name: string, containers: readonly Container[]): Promise<void> {
    if (containers.length > 0) await docker(['kill', '--signal', name, ...containers.map(({ Id }) => Id)]);
  }

  #compose(words: readonly string[], signal?: AbortSignal): Promise<string> {
    const env = {
      ...process.env,
      COMPOSE_PROJECT_NAME: this.#project,
      HTTP_PORT: String(this.#port),
      // It is ours alone, and nobody else is to upload.
      AUTH: 'none',
      API_KEYS: '',
      PUBLIC_URL: '',
    };
    return docker(['compose', '--progress', 'plain', ...words], env, signal);
  }
}

/** As it is in X-Served-By. */
function idOf({ Config }: Container): string {
  return Config.Hostname;
}
