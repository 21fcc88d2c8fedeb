import { toRun, withSpeedups } from '../src/figures/runs.js';
import { type Round, type Summary } from '../src/figures/summary.js';

/** What the specs measure with: a round as k6 could have found it. */
export function round(rps: number, changes: Partial<Round> = {}): Round {
  const requests = Math.round(rps * 16);
  return {
    startedAt: '2026-11-29T09:00:00.000Z',
    durationSeconds: 16,
    requests,
    uploads: requests,
    errors: 0,
    errorsByStatus: {},
    rps,
    megabytesPerSecond: rps * 0.898692,
    p50Ms: 300,
    p95Ms: 420,
    p99Ms: 500,
    connectionsPerSecond: 0.2,
    concurrentConnections: 4,
    shares: { a: 1 },
    cpuCores: { replicas: 0.2, balancer: 0.02, store: 0.06, generator: 0.05, machine: 0.4 },
    cpuByReplica: { a: 0.2 },
    throttled: [],
    missed: [],
    marks: [],
    series: [
      { second: 0, seconds: 8, answered: requests / 2, errors: 0, p95Ms: 410 },
      { second: 8, seconds: 8, answered: requests / 2, errors: 0, p95Ms: 430 },
    ],
    ...changes,
  };
}

/** A whole result: for each count the uploads a second of its rounds. */
export function summary(
  rates: Record<number, readonly (number | Round)[]>,
  target: Partial<Summary['target']> = {},
): Summary {
  const runs = Object.entries(rates).map(([count, rounds]) =>
    toRun(
      Number(count),
      rounds.map((rate) => (typeof rate === 'number' ? round(rate) : rate)),
      { coresPerReplica: 0.2, cores: 2 },
    ),
  );
  return {
    $schema: '../../summary.schema.json',
    version: 1,
    startedAt: '2026-11-29T09:00:00.000Z',
    finishedAt: '2026-11-29T09:05:00.000Z',
    script: 'one-vs-many',
    question: 'How many <photographs>?',
    machine: {
      cpu: 'a CPU',
      cores: 2,
      memoryBytes: 2 ** 34,
      system: 'Linux',
      node: 'v20.20.2',
      k6: 'v2.1.0',
    },
    target: {
      kind: 'compose',
      url: 'http://127.0.0.1:8080',
      cpusPerReplica: 0.2,
      isScaleOut: true,
      imageBytes: 898_692,
      ...target,
    },
    settings: {
      replicas: runs.map(({ replicas }) => replicas),
      rounds: 3,
      durationSeconds: 16,
      warmUpUploads: 400,
      clientsPerReplica: 4,
    },
    runs: withSpeedups(runs),
  };
}
