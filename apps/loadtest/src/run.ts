import { cpus, release, totalmem, type } from 'node:os';
import { type Capacity, GENERATOR_FULL, toRun, withSpeedups } from './figures/runs.js';
import { type Mark, type Round, type Summary, VERSION } from './figures/summary.js';
import { type K6, type Result } from './k6.js';
import { type RunOptions } from './options.js';
import { messageOf, RunFailed } from './problem.js';
import { Sampler } from './sampler.js';
import { type Stack } from './stack/stack.js';

/** Begins in each measurement before what is counted: connections are made, and code gets warm that had to wait. */
const ROUND_WARM_UP_SECONDS = 4;
/** Clients of the warm-up, for each replica. */
const WARM_UP_CLIENTS = 4;
const DEFAULT_WARM_UP = 400;
/** Of the measured time: when fault.js loses its replica, and when that comes back. */
const KILL_AT = 0.4;
const REVIVE_AT = 0.6;

/** Tells whoever waits what goes on. */
export interface Watcher {
  /** Stays. */
  say(line: string): void;
  /** Changes all the time. */
  show(line: string): void;
}

/**
 * Measures each number of replicas in turn, there and back and there again, so that what drifts (a machine that gets warm
 * or busy) falls on all of them alike.
 */
export async function measure(options: RunOptions, stack: Stack, k6: K6, watcher: Watcher): Promise<Summary> {
  const startedAt = new Date();
  const counts = options.replicas;
  const most = counts === undefined ? 1 : Math.max(...counts);
  await stack.start(most);
  const warmUp = options.warmUp ?? (stack.kind === 'url' ? 0 : DEFAULT_WARM_UP);
  if (warmUp > 0) {
    watcher.say(`Warming up: ${warmUp * most} uploads, without a quota …`);
    await k6.run(
      'seed',
      {
        BASE_URL: stack.url,
        REQUESTS: String(warmUp * most),
        VUS: String(WARM_UP_CLIENTS * most),
        SAMPLE: '0',
      },
      ({ iterations }) => watcher.show(`  ${iterations} of ${warmUp * most}`),
    );
  }
  await stack.limit();

  const rounds = new Map<number, Round[]>();
  let question = '';
  let bytes = 0;
  let answered = 0;
  for (let number = 1; number <= options.rounds; number++) {
    const there = counts ?? [1];
    for (const replicas of number % 2 === 1 ? there : there.toReversed()) {
      const name = `round ${number} of ${options.rounds}${counts === undefined ? '' : `, ${replicas} ${replicas === 1 ? 'replica' : 'replicas'}`}`;
      await stack.select(replicas);
      const { result, round } = await measureRound(replicas, name, options, stack, k6, watcher);
      watcher.say(`  ${name}: ${described(round)}`);
      // What runs at an address tells how many it is.
      const count = counts === undefined ? namesOf(result).length : replicas;
      rounds.set(count, [...(rounds.get(count) ?? []), round]);
      question = result.question;
      bytes += result.bytes;
      answered += result.requests - result.errors;
    }
  }
  const capacity: Capacity = { coresPerReplica: stack.cpusPerReplica ?? 1 };
  const runs = [...rounds].sort(([a], [b]) => a - b).map(([count, all]) => toRun(count, all, capacity));
  const isScaleOut = stack.kind === 'compose' && stack.cpusPerReplica !== null;
  return {
    $schema: '../../summary.schema.json',
    version: VERSION,
    startedAt: startedAt.toISOString(),
    finishedAt: new Date().toISOString(),
    script: options.script,
    question,
    machine: {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: cpus().length,
      memoryBytes: totalmem(),
      system: `${type()} ${release()}`,
      node: process.version,
      k6: k6.version,
    },
    target: {
      kind: stack.kind,
      url: stack.url.replace(/^(https?:\/\/)[^/]*@/, '$1'),
      cpusPerReplica: stack.cpusPerReplica,
      isScaleOut,
      imageBytes: answered > 0 ? Math.round(bytes / answered) : null,
    },
    settings: {
      replicas: runs.map(({ replicas }) => replicas),
      rounds: options.rounds,
      durationSeconds: options.durationSeconds,
      warmUpUploads: warmUp,
      clientsPerReplica: options.script === 'one-vs-many' ? options.clients : null,
    },
    runs: withSpeedups(runs),
  };
}

async function measureRound(
  replicas: number,
  name: string,
  { script, durationSeconds, clients }: RunOptions,
  stack: Stack,
  k6: K6,
  watcher: Watcher,
): Promise<{ result: Result; round: Round }> {
  const variables = {
    BASE_URL: stack.url,
    REPLICAS: String(replicas),
    VUS_PER_REPLICA: String(clients),
    WARM_UP: `${ROUND_WARM_UP_SECONDS}s`,
    DURATION: `${durationSeconds}s`,
  };
  const total = ROUND_WARM_UP_SECONDS + durationSeconds;
  const sampler = new Sampler(stack, k6);
  const fault = new Fault(
    script === 'fault' && stack.kind !== 'url' ? stack : undefined,
    durationSeconds,
    watcher,
  );
  let before: { seconds: number; iterations: number } | undefined;
  try {
    const result = await k6.run(script, variables, (progress) => {
      fault.begin();
      const seconds = progress.seconds - (before?.seconds ?? 0);
      const rate = seconds > 0 ? (progress.iterations - (before?.iterations ?? 0)) / seconds : 0;
      before = progress;
      watcher.show(`  ${name}: ${progress.seconds.toFixed(0)} of ${total} s, ${rate.toFixed(0)} uploads/s`);
    });
    if (result.aborted) throw new RunFailed('k6 was ended before its time, so that there is no result.');
    return { result, round: toRound(result, sampler, await fault.end(result)) };
  } finally {
    fault.cancel();
    await sampler.stop();
  }
}

function toRound(result: Result, sampler: Sampler, marks: Mark[]): Round {
  const { durationSeconds, requests, errors, latencyMs } = result;
  const from = Date.parse(result.startedAt);
  const answered = Object.values(result.byReplica).reduce((sum, count) => sum + count, 0);
  const { cpuCores, cpuByReplica } = sampler.between(from, from + durationSeconds * 1000);
  const cores = cpus().length;
  const generator = (cpuCores.generator ?? 0) / cores;
  return {
    startedAt: result.startedAt,
    durationSeconds,
    requests,
    uploads: result.uploads,
    errors,
    errorsByStatus: result.errorsByStatus,
    rps: (requests - errors) / durationSeconds,
    megabytesPerSecond: result.bytes / 1e6 / durationSeconds,
    p50Ms: latencyMs?.p50 ?? null,
    p95Ms: latencyMs?.p95 ?? null,
    p99Ms: latencyMs?.p99 ?? null,
    // k6 counts them from the warm-up on, when most are opened.
    connectionsPerSecond: result.connections / (ROUND_WARM_UP_SECONDS + durationSeconds),
    concurrentConnections: result.vusMax,
    shares: Object.fromEntries(
      Object.entries(result.byReplica).map(([id, count]) => [id, answered > 0 ? count / answered : 0]),
    ),
    cpuCores,
    cpuByReplica,
    throttled: [
      ...(result.droppedIterations > 0 ? [`dropped iterations: ${result.droppedIterations}`] : []),
      ...(result.vusExhausted ? [`all ${result.vusMax} VUs were busy`] : []),
      ...(generator > GENERATOR_FULL
        ? [`the generator used ${Math.round(100 * generator)} % of the CPU`]
        : []),
    ],
    missed: result.thresholds
      .filter(({ ok }) => !ok)
      .map(({ metric, threshold }) => `${metric} ${threshold}`),
    marks,
    series: [...(result.series ?? [])],
  };
}

function namesOf({ byReplica }: Result): string[] {
  return Object.keys(byReplica).filter((id) => id !== '(late)');
}

function described({ rps, p95Ms, errors, throttled, missed }: Round): string {
  return [
    `${rps.toFixed(1)} uploads/s`,
    `p95 ${p95Ms === null ? '-' : `${p95Ms.toFixed(0)} ms`}`,
    `${errors} errors`,
    ...throttled.map((reason) => `NOT A RESULT (${reason})`),
    ...missed.map((threshold) => `MISSED ${threshold}`),
  ].join(', ');
}

/** A replica that dies in the middle of a measurement, and comes back. */
class Fault {
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #done: { at: number; what: Mark['what']; replica: string }[] = [];
  #work: Promise<void> = Promise.resolve();
  #isBegun = false;

  constructor(
    private readonly stack: Stack | undefined,
    private readonly durationSeconds: number,
    private readonly watcher: Watcher,
  ) {}

  /** k6 has begun. */
  begin(): void {
    if (this.#isBegun || this.stack === undefined) return;
    this.#isBegun = true;
    const { stack } = this;
    let killed = '';
    this.#at(KILL_AT, async () => {
      killed = await stack.kill();
      this.#note('killed', killed);
    });
    this.#at(REVIVE_AT, async () => {
      await stack.revive();
      this.#note('started', killed);
    });
  }

  /** Resolves with what was done, in seconds since the measured load began. */
  async end({ startedAt }: Result): Promise<Mark[]> {
    await this.#work;
    return this.#done.map(({ at, what, replica }) => ({
      second: Math.round(at - Date.parse(startedAt)) / 1000,
      what,
      replica,
    }));
  }

  cancel(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #at(share: number, act: () => Promise<void>): void {
    const seconds = ROUND_WARM_UP_SECONDS + share * this.durationSeconds;
    this.#timers.push(
      setTimeout(() => {
        this.#work = this.#work.then(act).catch((error: unknown) => this.watcher.say(messageOf(error)));
      }, seconds * 1000),
    );
  }

  #note(what: Mark['what'], replica: string): void {
    this.#done.push({ at: Date.now(), what, replica });
    this.watcher.say(`  ${replica} ${what}`);
  }
}
