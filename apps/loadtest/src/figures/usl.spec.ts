import { fitUsl, type Point } from './usl.js';

function points(replicas: readonly number[], rps: readonly number[]): Point[] {
  return replicas.map((count, index) => ({ replicas: count, rps: rps[index]! }));
}

describe('the fit of the Universal Scalability Law', () => {
  for (const [lambda, alpha, beta] of [
    [12, 0, 0],
    [12, 0.05, 0],
    [40, 0.08, 0.002],
    [900, 0.3, 0.00004],
  ] as const) {
    it(`finds λ ${lambda}, α ${alpha} and β ${beta} again in points made of them`, () => {
      const counts = [1, 2, 3, 4, 6, 8, 12];
      const rps = counts.map((n) => (lambda * n) / (1 + alpha * (n - 1) + beta * n * (n - 1)));
      const fit = fitUsl(points(counts, rps));
      expect(fit.lambda.value).toBeCloseTo(lambda, 3);
      expect(fit.alpha.value).toBeCloseTo(alpha, 5);
      expect(fit.beta.value).toBeCloseTo(beta, 6);
      expect(fit.rSquared).toBeCloseTo(1, 8);
    });
  }

  // SPEC SDM91 on a Sun SPARCcenter 2000, of Gunther's Guerrilla Capacity Planning (2007). Coefficients and their
  // standard errors as the R package usl publishes them, https://github.com/smoeding/usl.
  it("reproduces what is published of Gunther's SPEC SDM91 data", () => {
    const fit = fitUsl(
      points([1, 18, 36, 72, 108, 144, 216], [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2]),
    );
    expect(fit.alpha.value).toBeCloseTo(0.0277285, 5);
    expect(fit.alpha.standardError).toBeCloseTo(0.0091217, 5);
    expect(fit.beta.value).toBeCloseTo(0.0001044, 6);
    expect(fit.beta.standardError).toBeCloseTo(0.0000199, 6);
    expect(fit.lambda.value).toBeCloseTo(89.9952, 1);
    expect(fit.lambda.standardError).toBeCloseTo(14.2134894, 1);
    expect(fit.peak).toBeCloseTo(96.5, 0);
  });

  // A ray tracer on an SGI Origin 2000, of the same book; coefficients of the tests of the R package usl.
  it("reproduces what is published of Gunther's ray tracer, whose β is 0", () => {
    const fit = fitUsl(
      points(
        [1, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64],
        [20, 78, 130, 170, 190, 200, 210, 230, 260, 280, 310],
      ),
    );
    expect(fit.alpha.value).toBeCloseTo(0.0578, 3);
    expect(fit.beta.value).toBeCloseTo(0, 6);
    expect(fit.lambda.value).toBeCloseTo(21.8488, 1);
    expect(fit.peak).toBe(Infinity);
  });

  it('is surer of a count that was measured than of one far beyond', () => {
    const fit = fitUsl(points([1, 1, 2, 2, 4, 4], [10, 11, 19, 21, 36, 39]));
    const near = fit.predict(4);
    const far = fit.predict(12);
    expect(near.low).toBeLessThan(near.rps);
    expect((far.high - far.low) / far.rps).toBeGreaterThan((near.high - near.low) / near.rps);
  });

  it('takes three counts and four points', () => {
    expect(() => fitUsl(points([1, 1, 3, 3], [10, 11, 29, 30]))).toThrow('three');
    expect(() => fitUsl(points([1, 2, 3], [10, 20, 29]))).toThrow('four');
  });
});
