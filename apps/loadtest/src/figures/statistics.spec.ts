import { estimate, mean, nines, percentile, t975, welch } from './statistics.js';

describe('percentiles', () => {
  it('are interpolated between the two nearest values', () => {
    const values = [15, 20, 35, 40, 50];
    expect(percentile(values, 0)).toBe(15);
    expect(percentile(values, 0.5)).toBe(35);
    expect(percentile(values, 0.4)).toBeCloseTo(29);
    expect(percentile(values, 0.95)).toBeCloseTo(48);
    expect(percentile(values, 1)).toBe(50);
  });

  it('ask for no order', () => {
    expect(percentile([3, 1, 2], 0.5)).toBe(2);
  });

  it('need a value, and a share', () => {
    expect(() => percentile([], 0.5)).toThrow('needs a value');
    expect(() => percentile([1], 95)).toThrow('0 to 1');
    expect(() => mean([])).toThrow('needs a value');
  });
});

describe('nines', () => {
  it('count the nines of the availability', () => {
    expect(nines(1000, 1)).toBeCloseTo(3);
    expect(nines(100_000, 1)).toBeCloseTo(5);
    expect(nines(1000, 500)).toBeCloseTo(0.301);
  });

  it('of what never failed are no more than so many requests can show', () => {
    expect(nines(2000, 0)).toBeCloseTo(3.301);
  });

  it('are none where nothing was answered', () => {
    expect(nines(0, 0)).toBe(0);
    expect(nines(10, 10)).toBe(0);
  });
});

describe('intervals', () => {
  // A table of Student's t, two-sided 95 %.
  for (const [freedom, t] of [
    [1, 12.7062],
    [2, 4.3027],
    [3, 3.1824],
    [4, 2.7764],
    [5, 2.5706],
    [10, 2.2281],
    [30, 2.0423],
    [120, 1.9799],
  ] as const) {
    it(`take t ${t} for ${freedom} degrees of freedom`, () => {
      expect(Math.abs(t975(freedom) - t)).toBeLessThan(0.002);
    });
  }

  it('of three rounds are their mean and 2.48 standard deviations', () => {
    const { mean, plusMinus } = estimate([9, 10, 11]);
    expect(mean).toBe(10);
    expect(plusMinus).toBeCloseTo(4.3027 / Math.sqrt(3), 3);
  });

  it('of one round are not known', () => {
    expect(estimate([10])).toEqual({ mean: 10, plusMinus: null });
  });

  it("of a difference are Welch's", () => {
    // B. L. Welch's case of unequal variances; R: t.test(c(1, 2, 3, 4), c(6, 8, 10)).
    const found = welch([1, 2, 3, 4], [6, 8, 10])!;
    expect(found.difference).toBe(5.5);
    expect(found.low).toBeCloseTo(1.5, 0);
    expect(found.high).toBeCloseTo(9.5, 0);
    expect(welch([1], [2, 3])).toBeUndefined();
    expect(welch([1, 1], [3, 3])).toEqual({ difference: 2, low: 2, high: 2 });
  });
});
