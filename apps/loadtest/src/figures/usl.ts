import { levenbergMarquardt } from 'ml-levenberg-marquardt';
import { inverse, Matrix } from 'ml-matrix';
import { t975 } from './statistics.js';

/** Throughput measured with so many replicas. */
export interface Point {
  readonly replicas: number;
  /** Uploads a second. */
  readonly rps: number;
}

/** One figure of a fit. */
export interface Coefficient {
  readonly value: number;
  readonly standardError: number;
  /** Its 95 % confidence interval. */
  readonly low: number;
  readonly high: number;
}

/**
 * Gunther's Universal Scalability Law: N replicas carry λN / (1 + α(N − 1) + βN(N − 1)).
 * N. J. Gunther, Guerrilla Capacity Planning, Springer 2007, doi:10.1007/978-3-540-31010-5.
 */
export interface Fit {
  /** Uploads a second of one replica. */
  readonly lambda: Coefficient;
  /** Contention: the share of the work that waits for something all of them share. */
  readonly alpha: Coefficient;
  /** Coherence: what each pair of replicas costs. */
  readonly beta: Coefficient;
  /** Coefficient of determination, 1 at best; null where nothing varies. */
  readonly rSquared: number | null;
  /** Of one measurement, uploads a second. */
  readonly residualStandardError: number;
  /** Measurements less coefficients. */
  readonly freedom: number;
  readonly predict: (replicas: number) => { rps: number; low: number; high: number };
  /** From how many replicas on more of them carry less; Infinity: never. */
  readonly peak: number;
}

/** What has to be there for three coefficients. */
export const MIN_COUNTS = 3;

/**
 * Fits by nonlinear least squares (Levenberg-Marquardt), from where the law made linear, N/X = a + b(N − 1) + cN(N − 1), is
 * fitted best. Neither α nor β may be below 0: a solution that is would say that replicas help each other, so the best
 * one with that coefficient at 0 takes its place. The intervals are those of the model made linear at the solution.
 *
 * @throws RangeError with fewer than three different counts, or fewer than four points
 */
export function fitUsl(points: readonly Point[]): Fit {
  const counts = new Set(points.map(({ replicas }) => replicas));
  if (counts.size < MIN_COUNTS || points.length <= 3) {
    throw new RangeError(`The law has three coefficients: it takes ${MIN_COUNTS} counts and four points.`);
  }
  const solutions = [
    [true, true],
    [true, false],
    [false, true],
    [false, false],
  ].map(([withAlpha = false, withBeta = false]) => solve(points, withAlpha, withBeta));
  const [best] = solutions
    .filter(([lambda, alpha, beta]) => lambda > 0 && alpha >= 0 && beta >= 0)
    .sort((a, b) => squaresOf(a, points) - squaresOf(b, points));
  if (best === undefined) throw new RangeError('The law does not fit these points at all.');
  return described(best, points);
}

/** The best one, wherever it lies; a coefficient that is left out is 0. */
function solve(points: readonly Point[], withAlpha: boolean, withBeta: boolean): Parameters {
  // Scaled to about 1, so that a step of one coefficient weighs as much as one of another.
  const [lambda, alpha, beta] = startOf(points);
  const most = Math.max(...points.map(({ replicas }) => replicas));
  const scaled = ([l = 0, ...rest]: readonly number[]): Parameters => [
    l * lambda,
    withAlpha ? (rest[0] ?? 0) : 0,
    withBeta ? (rest[withAlpha ? 1 : 0] ?? 0) / most : 0,
  ];
  const { parameterValues } = levenbergMarquardt(
    { x: points.map(({ replicas }) => replicas), y: points.map(({ rps }) => rps / lambda) },
    (parameters) => {
      const all = scaled(parameters);
      return (replicas) => throughput(all, replicas) / lambda;
    },
    {
      initialValues: [1, ...(withAlpha ? [alpha] : []), ...(withBeta ? [beta * most] : [])],
      damping: 1e-3,
      centralDifference: true,
      gradientDifference: 1e-6,
      maxIterations: 500,
      errorTolerance: 1e-14,
    },
  );
  return scaled(parameterValues);
}

function squaresOf(parameters: Parameters, points: readonly Point[]): number {
  return points.reduce((sum, { replicas, rps }) => sum + (rps - throughput(parameters, replicas)) ** 2, 0);
}

type Parameters = readonly [lambda: number, alpha: number, beta: number];

function throughput([lambda, alpha, beta]: Parameters, n: number): number {
  return (lambda * n) / (1 + alpha * (n - 1) + beta * n * (n - 1));
}

/** Of the throughput by each coefficient. */
function gradient([lambda, alpha, beta]: Parameters, n: number): [number, number, number] {
  const divisor = 1 + alpha * (n - 1) + beta * n * (n - 1);
  return [n / divisor, (-lambda * n * (n - 1)) / divisor ** 2, (-lambda * n * n * (n - 1)) / divisor ** 2];
}

/** The least squares of N/X, which is linear in its coefficients. */
function startOf(points: readonly Point[]): Parameters {
  const rows = new Matrix(points.map(({ replicas: n }) => [1, n - 1, n * (n - 1)]));
  const right = Matrix.columnVector(points.map(({ replicas, rps }) => replicas / rps));
  const transposed = rows.transpose();
  const [a = 1, b = 0, c = 0] = inverse(transposed.mmul(rows)).mmul(transposed).mmul(right).to1DArray();
  return a > 0
    ? [1 / a, Math.max(0, b / a), Math.max(0, c / a)]
    : [Math.max(...points.map(({ rps }) => rps)), 0, 0];
}

function described(parameters: Parameters, points: readonly Point[]): Fit {
  const [lambda, alpha, beta] = parameters;
  const freedom = points.length - parameters.length;
  const squares = squaresOf(parameters, points);
  const average = points.reduce((sum, { rps }) => sum + rps, 0) / points.length;
  const total = points.reduce((sum, { rps }) => sum + (rps - average) ** 2, 0);
  const jacobian = new Matrix(points.map(({ replicas }) => gradient(parameters, replicas)));
  const covariance = inverse(jacobian.transpose().mmul(jacobian)).mul(squares / freedom);
  const t = t975(freedom);
  const coefficient = (value: number, index: number): Coefficient => {
    const standardError = Math.sqrt(covariance.get(index, index));
    return { value, standardError, low: value - t * standardError, high: value + t * standardError };
  };
  return {
    lambda: coefficient(lambda, 0),
    alpha: coefficient(alpha, 1),
    beta: coefficient(beta, 2),
    rSquared: total === 0 ? null : 1 - squares / total,
    residualStandardError: Math.sqrt(squares / freedom),
    freedom,
    predict: (replicas) => {
      const row = new Matrix([gradient(parameters, replicas)]);
      const margin = t * Math.sqrt(Math.max(0, row.mmul(covariance).mmul(row.transpose()).get(0, 0)));
      const rps = throughput(parameters, replicas);
      return { rps, low: Math.max(0, rps - margin), high: rps + margin };
    },
    peak: beta > 0 ? Math.sqrt(Math.max(0, 1 - alpha) / beta) : Infinity,
  };
}
