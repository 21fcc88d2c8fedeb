import { type Difference, mean, welch } from './statistics.js';
import { type Round, type Summary } from './summary.js';

/** What is looked at; whether more of it is better. */
export const METRICS = {
  rps: { isMoreBetter: true, of: (round: Round) => round.rps },
  p50Ms: { isMoreBetter: false, of: (round: Round) => round.p50Ms },
  p95Ms: { isMoreBetter: false, of: (round: Round) => round.p95Ms },
  p99Ms: { isMoreBetter: false, of: (round: Round) => round.p99Ms },
  errors: { isMoreBetter: false, of: (round: Round) => round.errors },
  cpuMsPerUpload: {
    isMoreBetter: false,
    of: ({ cpuCores, rps }: Round) =>
      cpuCores.replicas === null || rps === 0 ? null : (1000 * cpuCores.replicas) / rps,
  },
} as const;

export interface Change {
  readonly replicas: number;
  readonly metric: keyof typeof METRICS;
  readonly before: number;
  readonly after: number;
  /** Welch's interval of the difference; undefined: too few rounds to tell. */
  readonly interval: Difference | undefined;
  readonly verdict: 'better' | 'worse' | 'noise' | 'unknown';
}

export interface Comparison {
  readonly changes: readonly Change[];
  /** Settings in which the two differ, so that a change may be theirs: name, before, after. */
  readonly differing: readonly (readonly [name: string, before: string, after: string])[];
  /** Counts that only one of them has. */
  readonly unmatched: readonly number[];
}

/** What changed from one result to another, each figure by itself at 95 %: of twenty that stay, one seems to change. */
export function compare(before: Summary, after: Summary): Comparison {
  const changes = before.runs.flatMap(({ replicas, rounds }) => {
    const other = after.runs.find((run) => run.replicas === replicas);
    if (other === undefined) return [];
    const names = Object.keys(METRICS) as Change['metric'][];
    return names.flatMap((metric) => changeOf(replicas, metric, rounds, other.rounds) ?? []);
  });
  const counts = (summary: Summary): number[] => summary.runs.map(({ replicas }) => replicas);
  return {
    changes,
    differing: settingsOf(before).flatMap(([name, value], index) => {
      const other = settingsOf(after)[index]?.[1] ?? '';
      return value === other ? [] : [[name, value, other] as const];
    }),
    unmatched: [...new Set([...counts(before), ...counts(after)])].filter(
      (count) => !counts(before).includes(count) || !counts(after).includes(count),
    ),
  };
}

function changeOf(
  replicas: number,
  metric: Change['metric'],
  first: readonly Round[],
  second: readonly Round[],
): Change | undefined {
  const { of, isMoreBetter } = METRICS[metric];
  const [a, b] = [first, second].map((rounds) => rounds.flatMap((round) => of(round) ?? []));
  if (!a?.length || !b?.length) return undefined;
  const interval = welch(a, b);
  const change = { replicas, metric, before: mean(a), after: mean(b), interval };
  if (interval === undefined) return { ...change, verdict: 'unknown' };
  if (interval.low <= 0 && interval.high >= 0) return { ...change, verdict: 'noise' };
  return { ...change, verdict: interval.difference > 0 === isMoreBetter ? 'better' : 'worse' };
}

function settingsOf({ script, machine, target, settings }: Summary): [string, string][] {
  return [
    ['script', script],
    ['machine', `${machine.cpu}, ${machine.cores} cores`],
    ['against', target.kind],
    ['cpus per replica', String(target.cpusPerReplica ?? 'no quota')],
    ['clients per replica', String(settings.clientsPerReplica ?? '-')],
    ['duration', `${settings.durationSeconds} s`],
  ];
}
