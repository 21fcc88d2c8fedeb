/** The mean of several measurements, and how far the true one may lie from it. */
export interface Estimate {
  readonly mean: number;
  /** Half the width of the 95 % confidence interval; null: one measurement tells nothing of its noise. */
  readonly plusMinus: number | null;
}

/** A difference between two sets of measurements. */
export interface Difference {
  /** Of the means, the second less the first. */
  readonly difference: number;
  /** The 95 % confidence interval of that. */
  readonly low: number;
  readonly high: number;
}

/** @throws RangeError without values */
export function mean(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('A mean needs a value.');
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * The value that `share` (0 to 1) of the values don't exceed, interpolated linearly between the two nearest, as k6
 * does (Hyndman and Fan's type 7).
 *
 * @throws RangeError without values, or with a share that is none
 */
export function percentile(values: readonly number[], share: number): number {
  if (!(share >= 0 && share <= 1)) throw new RangeError(`A share is 0 to 1, not ${share}.`);
  const sorted = [...values].sort((a, b) => a - b);
  const position = (sorted.length - 1) * share;
  const low = sorted[Math.floor(position)];
  const high = sorted[Math.ceil(position)];
  if (low === undefined || high === undefined) throw new RangeError('A percentile needs a value.');
  return low + (high - low) * (position - Math.floor(position));
}

/** By Student's t. */
export function estimate(values: readonly number[]): Estimate {
  const average = mean(values);
  if (values.length < 2) return { mean: average, plusMinus: null };
  const standardError = Math.sqrt(variance(values) / values.length);
  return { mean: average, plusMinus: t975(values.length - 1) * standardError };
}

/**
 * By Welch's t, which asks for no equal variances; both need two values. Without any scatter the interval is the
 * difference itself.
 */
export function welch(first: readonly number[], second: readonly number[]): Difference | undefined {
  if (first.length < 2 || second.length < 2) return undefined;
  const difference = mean(second) - mean(first);
  const a = variance(first) / first.length;
  const b = variance(second) / second.length;
  if (a + b === 0) return { difference, low: difference, high: difference };
  const freedom = (a + b) ** 2 / (a ** 2 / (first.length - 1) + b ** 2 / (second.length - 1));
  const margin = t975(freedom) * Math.sqrt(a + b);
  return { difference, low: difference - margin, high: difference + margin };
}

/**
 * Availability in nines: 0.999 is 3. What never failed in so many requests has as many as could be seen: one failure
 * among them would have been one in `requests`, so that it is "at least" this.
 */
export function nines(requests: number, errors: number): number {
  if (requests <= 0 || errors >= requests) return 0;
  return errors === 0 ? Math.log10(requests) : -Math.log10(errors / requests);
}

/**
 * Student's t that 97.5 % lie below, for any degrees of freedom from 1 on: G. W. Hill, Algorithm 396, Communications of
 * the ACM 13 (1970). Right to four digits at least.
 */
export function t975(freedom: number): number {
  const n = Math.max(1, freedom);
  const p = 0.05;
  if (n < 1.000001) return 1 / Math.tan((p * Math.PI) / 2);
  if (Math.abs(n - 2) < 1e-6) return Math.sqrt(2 / (p * (2 - p)) - 2);
  const a = 1 / (n - 0.5);
  const b = 48 / a ** 2;
  let c = (((20_700 * a) / b - 98) * a - 16) * a + 96.36;
  const d = ((94.5 / (b + c) - 3) / b + 1) * Math.sqrt((a * Math.PI) / 2) * n;
  let y = (d * p) ** (2 / n);
  if (y > 0.05 + a) {
    const x = -1.959964;
    y = x ** 2;
    if (n < 5) c += 0.3 * (n - 4.5) * (x + 0.6);
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c;
    y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x;
    y = Math.expm1(a * y ** 2);
  } else {
    y =
      ((1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1) *
        ((n + 1) / (n + 2)) +
      1 / y;
  }
  return Math.sqrt(n * y);
}

function variance(values: readonly number[]): number {
  const average = mean(values);
  return values.reduce((sum, value) => sum + (value - average) ** 2, 0) / (values.length - 1);
}
