import { LINK_BYTES_PER_SECOND } from './runs.js';
import { type Summary } from './summary.js';
import { type Fit, fitUsl, MIN_COUNTS } from './usl.js';

export interface Question {
  /** Uploads a second. */
  readonly rps: number;
  /** The 95th percentile is to stay under so many milliseconds. */
  readonly p95?: number;
  /** Of the balancer, Gbit/s. */
  readonly link: number;
}

/** Why there is no answer, or none to trust. */
export type Refusal =
  /** One point of measurement each: replicas shared the CPU, so that more of them can't show. */
  | { readonly why: 'not-scale-out' }
  | { readonly why: 'throttled' | 'errors' | 'machine-full'; readonly replicas: readonly number[] }
  | { readonly why: 'too-few-counts'; readonly counts: number }
  | { readonly why: 'too-few-points'; readonly points: number }
  | { readonly why: 'poor-fit'; readonly rSquared: number | null }
  | { readonly why: 'alpha-over-1'; readonly alpha: number }
  /** No number of replicas carries it. */
  | { readonly why: 'never'; readonly most: number; readonly at: number }
  /** None does by the law, whose peak is a guess itself. */
  | { readonly why: 'peak-unseen'; readonly most: number; readonly at: number; readonly measured: number }
  | { readonly why: 'extrapolated'; readonly replicas: number; readonly measured: number }
  /** So many carry it, but no number does under that p95. */
  | { readonly why: 'never-so-fast'; readonly replicas: number }
  /** An upload alone takes longer. */
  | { readonly why: 'p95-too-short'; readonly least: number };

export interface Forecast {
  readonly fit: Fit | undefined;
  /** Empty: `replicas` holds. */
  readonly refusals: readonly Refusal[];
  /** As many as the law says; `low` and `high` are the ends of its 95 % interval. `high` may be Infinity. */
  readonly replicas: { readonly best: number; readonly low: number; readonly high: number } | undefined;
  readonly ceilings: {
    /** Uploads a second of one balancer, and how many balancers the load takes; null: the image's size isn't known. */
    readonly link: { readonly rps: number; readonly balancers: number } | null;
    /** Uploads a second of the store that was measured, on a whole machine like this one; null: its CPU isn't known. */
    readonly store: { readonly rps: number; readonly cores: number } | null;
  };
}

/** The law explains too little of what was measured. */
const MIN_R_SQUARED = 0.9;
/** Beyond this many times the most that was measured, the law is a guess. */
const MAX_EXTRAPOLATION = 2;
const MAX_ERRORS = 0.001;
/** A client in twenty waits longer: of an exponential distribution, ln 20 times its mean. */
const P95_OF_MEAN = Math.log(20);
/** No answer has more; the law is asked no further. */
const MOST_REPLICAS = 10_000;

/**
 * How many replicas a load takes, by the Universal Scalability Law fitted to every round that was measured.
 *
 * The law tells capacity: uploads a second of replicas that are never idle, whose queues, and with them latencies, are as
 * long as clients make them. Under a 95th percentile a replica may be busy for a part of the time only. With arrivals at
 * random and one queue for each replica (M/M/1), that percentile is ln 20 × S / (1 − ρ), S being the time an upload
 * takes a replica and ρ the part of the time it is busy.
 */
export function forecast(summary: Summary, question: Question): Forecast {
  const { runs, target, machine } = summary;
  const points = runs.flatMap(({ replicas, rounds }) => rounds.map(({ rps }) => ({ replicas, rps })));
  const refusals: Refusal[] = [];
  if (!target.isScaleOut) refusals.push({ why: 'not-scale-out' });
  const throttled = runs.filter((run) => run.throttled.length > 0);
  if (throttled.length > 0)
    refusals.push({ why: 'throttled', replicas: throttled.map(({ replicas }) => replicas) });
  const failed = runs.filter((run) => run.errors > MAX_ERRORS * run.requests);
  if (failed.length > 0) refusals.push({ why: 'errors', replicas: failed.map(({ replicas }) => replicas) });
  const full = runs.filter(({ saturated }) => saturated.includes('machine'));
  if (target.isScaleOut && full.length > 0) {
    refusals.push({ why: 'machine-full', replicas: full.map(({ replicas }) => replicas) });
  }
  if (runs.length < MIN_COUNTS) refusals.push({ why: 'too-few-counts', counts: runs.length });
  else if (points.length <= MIN_COUNTS) refusals.push({ why: 'too-few-points', points: points.length });

  const canFit = runs.length >= MIN_COUNTS && points.length > MIN_COUNTS;
  const fit = canFit ? fitUsl(points) : undefined;
  if (fit !== undefined) {
    if (fit.rSquared === null || fit.rSquared < MIN_R_SQUARED) {
      refusals.push({ why: 'poor-fit', rSquared: fit.rSquared });
    }
    if (fit.alpha.value > 1) refusals.push({ why: 'alpha-over-1', alpha: fit.alpha.value });
  }
  const replicas = fit && answer(fit, question, Math.max(...runs.map(({ replicas }) => replicas)), refusals);
  return {
    fit,
    refusals,
    replicas,
    ceilings: {
      link: linkCeiling(target.imageBytes, question),
      store: storeCeiling(runs, machine.cores),
    },
  };
}

function answer(
  fit: Fit,
  { rps, p95 }: Question,
  measured: number,
  refusals: Refusal[],
): Forecast['replicas'] {
  const least = (1000 * P95_OF_MEAN) / fit.lambda.value;
  if (p95 !== undefined && p95 <= least) {
    refusals.push({ why: 'p95-too-short', least });
    return undefined;
  }
  const capacity = (n: number): number => fit.predict(n).rps;
  const best = fewest(rps, p95, capacity);
  if (best === undefined) {
    const slowly = p95 === undefined ? undefined : fewest(rps, undefined, capacity);
    refusals.push(
      slowly === undefined ? noneCarries(fit, measured) : { why: 'never-so-fast', replicas: slowly },
    );
    return undefined;
  }
  if (best > MAX_EXTRAPOLATION * measured) refusals.push({ why: 'extrapolated', replicas: best, measured });
  return {
    best,
    low: fewest(rps, p95, (n) => fit.predict(n).high) ?? best,
    high: fewest(rps, p95, (n) => fit.predict(n).low) ?? Infinity,
  };
}

function noneCarries(fit: Fit, measured: number): Refusal {
  const at = Math.min(MOST_REPLICAS, Math.max(1, Math.round(fit.peak)));
  const peak = { most: fit.predict(at).rps, at };
  return at <= MAX_EXTRAPOLATION * measured
    ? { why: 'never', ...peak }
    : { why: 'peak-unseen', ...peak, measured };
}

/** The least number of replicas that carry it; undefined: none does. */
function fewest(
  rps: number,
  p95: number | undefined,
  capacity: (replicas: number) => number,
): number | undefined {
  let before = 0;
  for (let n = 1; n <= MOST_REPLICAS; n++) {
    const most = capacity(n);
    const serviceMs = (1000 * n) / most;
    const busy = p95 === undefined ? 1 : Math.max(0, 1 - (P95_OF_MEAN * serviceMs) / p95);
    if (most * busy >= rps) return n;
    if (most * busy < before) return undefined; // Past the peak.
    before = most * busy;
  }
  return undefined;
}

function linkCeiling(imageBytes: number | null, { rps, link }: Question): Forecast['ceilings']['link'] {
  if (imageBytes === null || imageBytes === 0) return null;
  const ceiling = (link * LINK_BYTES_PER_SECOND) / imageBytes;
  return { rps: ceiling, balancers: Math.ceil(rps / ceiling) };
}

function storeCeiling(runs: Summary['runs'], cores: number): Forecast['ceilings']['store'] {
  const costs = runs.flatMap(({ cpuMsPerUpload }) => cpuMsPerUpload.store ?? []).filter((cost) => cost > 0);
  // Under more load it costs less for each.
  return costs.length === 0 ? null : { rps: (1000 * cores) / Math.min(...costs), cores };
}
