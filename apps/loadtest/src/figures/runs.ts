import { cpus } from 'node:os';
import { estimate, mean, nines, percentile } from './statistics.js';
import { type Cpu, type Round, type Run } from './summary.js';

/** Beyond this share of what it has, a part of the system has no more to give. */
const FULL = 0.9;
/** A machine that is as full as this leaves everybody short, quotas or not. */
const MACHINE_FULL = 0.95;
/** A generator that uses more of its cores than this sends late, and measures its own waiting. */
export const GENERATOR_FULL = 0.85;
/** Of a balancer with a link of 1 Gbit/s, in bytes a second each way. */
export const LINK_BYTES_PER_SECOND = 125_000_000;

const PARTS = ['replicas', 'balancer', 'store', 'generator', 'machine'] as const;

/** What the parts of the system have to give. */
export interface Capacity {
  /** Cores of one replica: its quota, or 1, since JavaScript runs on one. */
  readonly coresPerReplica: number;
  /** Of the machine of the generator. */
  readonly cores?: number;
}

/** One run out of its rounds, without a speed-up: that takes the others. */
export function toRun(replicas: number, rounds: readonly Round[], capacity: Capacity): Run {
  const sum = (value: (round: Round) => number): number =>
    rounds.reduce((all, round) => all + value(round), 0);
  const median = (name: 'p50Ms' | 'p95Ms' | 'p99Ms'): number | null => {
    const values = rounds.flatMap((round) => round[name] ?? []);
    return values.length > 0 ? percentile(values, 0.5) : null;
  };
  const requests = sum((round) => round.requests);
  const errors = sum((round) => round.errors);
  const answered = requests - errors;
  const rps = estimate(rounds.map((round) => round.rps));
  const cores = eachPart((part) => averageOf(rounds.map((round) => round.cpuCores[part])));
  return {
    replicas,
    rounds: [...rounds],
    requests,
    errors,
    errorsByStatus: added(rounds.map((round) => round.errorsByStatus)),
    availability: requests > 0 ? answered / requests : 0,
    nines: nines(requests, errors),
    rps: rps.mean,
    rpsPlusMinus: rps.plusMinus,
    megabytesPerSecond: mean(rounds.map((round) => round.megabytesPerSecond)),
    p50Ms: median('p50Ms'),
    p95Ms: median('p95Ms'),
    p99Ms: median('p99Ms'),
    connectionsPerSecond: mean(rounds.map((round) => round.connectionsPerSecond)),
    concurrentConnections: Math.max(...rounds.map((round) => round.concurrentConnections)),
    shares: sharesOf(rounds),
    cpuCores: cores,
    cpuMsPerUpload: eachPart((part) => {
      const used = cores[part];
      return used === null || rps.mean === 0 ? null : (1000 * used) / rps.mean;
    }),
    speedup: null,
    speedupPlusMinus: null,
    efficiency: null,
    saturated: saturatedOf(replicas, cores, mean(rounds.map((round) => round.megabytesPerSecond)), capacity),
    throttled: [...new Set(rounds.flatMap((round) => round.throttled))],
    missed: [...new Set(rounds.flatMap((round) => round.missed))],
  };
}

/**
 * Adds speed-up and efficiency, where there is a run with one replica and neither that nor the other was held back by the
 * generator. The error is that of a quotient of two independent means.
 */
export function withSpeedups(runs: readonly Run[]): Run[] {
  const one = runs.find(
    ({ replicas, throttled, rps }) => replicas === 1 && throttled.length === 0 && rps > 0,
  );
  return runs.map((run) => {
    if (one === undefined || run.throttled.length > 0) return run;
    const speedup = run.rps / one.rps;
    return {
      ...run,
      speedup,
      speedupPlusMinus: run === one ? 0 : quotientError(run, one),
      efficiency: speedup / run.replicas,
    };
  });
}

function quotientError(run: Run, one: Run): number | null {
  if (run.rpsPlusMinus === null || one.rpsPlusMinus === null || run.rps === 0) return null;
  return (run.rps / one.rps) * Math.hypot(run.rpsPlusMinus / run.rps, one.rpsPlusMinus / one.rps);
}

function saturatedOf(
  replicas: number,
  used: Cpu,
  megabytesPerSecond: number,
  { coresPerReplica, cores = cpus().length }: Capacity,
): Run['saturated'] {
  const isFull = {
    replicas: (used.replicas ?? 0) >= FULL * coresPerReplica * replicas,
    balancer: (used.balancer ?? 0) >= FULL * cores,
    store: (used.store ?? 0) >= FULL * cores,
    generator: (used.generator ?? 0) >= GENERATOR_FULL * cores,
    network: megabytesPerSecond * 1e6 >= FULL * LINK_BYTES_PER_SECOND,
    machine: (used.machine ?? 0) >= MACHINE_FULL * cores,
  };
  return (Object.keys(isFull) as (keyof typeof isFull)[]).filter((part) => isFull[part]);
}

/** Weighed by what was answered in each round. */
function sharesOf(rounds: readonly Round[]): Record<string, number> {
  const answered = (round: Round): number => round.requests - round.errors;
  const all = rounds.reduce((sum, round) => sum + answered(round), 0);
  if (all === 0) return {};
  const counts = added(
    rounds.map((round) =>
      Object.fromEntries(Object.entries(round.shares).map(([id, share]) => [id, share * answered(round)])),
    ),
  );
  return Object.fromEntries(Object.entries(counts).map(([id, number]) => [id, number / all]));
}

function added(records: readonly Record<string, number>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const record of records) {
    for (const [name, value] of Object.entries(record)) sums[name] = (sums[name] ?? 0) + value;
  }
  return sums;
}

function eachPart(value: (part: keyof Cpu) => number | null): Cpu {
  return Object.fromEntries(PARTS.map((part) => [part, value(part)])) as unknown as Cpu;
}

function averageOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length > 0 ? mean(known) : null;
}
