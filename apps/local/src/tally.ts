import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { rewrites, show } from './terminal.js';

const SECOND_MS = 1_000;
/** Room for a burst of log lines while this process is busy. */
const RECEIVE_BYTES = 1024 * 1024;
/** What nginx answered without a replica: from its cache, or a refusal. */
const ITSELF = 'nginx';

/** What is read of a line of nginx's access log (deploy/nginx/http/log.conf). */
interface LogLine {
  readonly status: number;
  /** Every replica that was tried, in order. */
  readonly upstream: string;
}

/** Counts who served how many, by nginx's access log, which comes here by UDP and touches no disk. */
export class Tally {
  readonly #socket = createSocket('udp4');
  #counts = new Map<string, number>();
  #failures = 0;
  #total = 0;
  #wasIdle = true;

  constructor(
    /** What is counted: requests or, by an L4 balancer, connections. */
    private readonly noun: string,
    private readonly idOf: (address: string) => string | undefined,
    private readonly ids: () => readonly string[],
  ) {
    this.#socket.on('message', (message) => {
      this.#count(message.toString());
    });
  }

  /** Resolves with where nginx is to send its log, as LB_ACCESS_LOG names it. */
  async open(): Promise<string> {
    this.#socket.bind(0, '127.0.0.1').unref();
    await once(this.#socket, 'listening');
    this.#socket.setRecvBufferSize(RECEIVE_BYTES);
    return `syslog:server=127.0.0.1:${this.#socket.address().port},nohostname`;
  }

  /** From now on, once a second. */
  start(): void {
    setInterval(() => {
      this.#report();
    }, SECOND_MS).unref();
  }

  #count(message: string): void {
    const line = parse(message);
    // Anybody on this machine can send us something.
    if (typeof line?.upstream !== 'string' || typeof line.status !== 'number') return;
    const [last = ''] = /[^ ]*$/.exec(line.upstream) ?? [];
    const id = this.idOf(last) ?? ITSELF;
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    this.#total += 1;
    if (line.status >= 500) this.#failures += 1;
  }

  #report(): void {
    const counts = this.#counts;
    const failures = this.#failures;
    this.#counts = new Map();
    this.#failures = 0;
    const isIdle = counts.size === 0;
    // A terminal is told once that it is over; a file keeps only the seconds in which something happened.
    if (!isIdle || (rewrites && !this.#wasIdle)) show(this.#line(counts, failures));
    this.#wasIdle = isIdle;
  }

  #line(counts: ReadonlyMap<string, number>, failures: number): string {
    const names = [...new Set([...this.ids(), ...counts.keys()])];
    const sum = [...counts.values()].reduce((a, b) => a + b, 0);
    return [
      `${this.noun}/s ${sum}`,
      ...names.map((name) => `${name} ${counts.get(name) ?? 0}`),
      ` total ${this.#total.toLocaleString('en')}`,
      ...(failures > 0 ? [`5xx ${failures}`] : []),
    ].join('  ');
  }
}

/** A message is `<190>Nov 21 12:00:00 nginx: {…}`. */
function parse(message: string): Partial<LogLine> | null | undefined {
  try {
    return JSON.parse(message.slice(message.indexOf('{'))) as Partial<LogLine> | null;
  } catch {
    return undefined;
  }
}
