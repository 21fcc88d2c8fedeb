import { forecast, type Question, type Refusal } from '../src/figures/forecast.js';
import { type Summary } from '../src/figures/summary.js';
import { round, summary } from './examples.js';

const LAMBDA = 12;
/** With a little scatter that cancels out. */
function law(alpha: number, beta: number, counts = [1, 2, 3, 4], lambda = LAMBDA): Record<number, number[]> {
  return Object.fromEntries(
    counts.map((n) => {
      const rps = (lambda * n) / (1 + alpha * (n - 1) + beta * n * (n - 1));
      return [n, [rps * 0.99, rps, rps * 1.01]];
    }),
  );
}

function refusalsOf(measured: Summary, question: Partial<Question> = {}): Refusal['why'][] {
  return forecast(measured, { rps: 40, link: 1, ...question }).refusals.map(({ why }) => why);
}

describe('a forecast', () => {
  it('answers with the fewest replicas that carry the load, and how sure that is', () => {
    const { replicas, refusals } = forecast(summary(law(0.05, 0)), { rps: 50, link: 1 });
    // 12 × 5 / 1.2 is 50.
    expect(refusals).toEqual([]);
    expect([5, 6]).toContain(replicas?.best);
    expect(replicas!.low).toBeLessThanOrEqual(replicas!.best);
    expect(replicas!.high).toBeGreaterThanOrEqual(replicas!.best);
  });

  it('takes more replicas for a p95, since a busy replica has a queue', () => {
    const measured = summary(law(0, 0));
    const free = forecast(measured, { rps: 40, link: 1 });
    const bound = forecast(measured, { rps: 40, p95: 750, link: 1 });
    expect(free.replicas?.best).toBe(4);
    // ln 20 × 83 ms is 250 ms: of 750 ms a third, so that each may be busy for two thirds. 40 / (12 × 2/3) is 5.
    expect(bound.replicas?.best).toBe(5);
    expect(bound.refusals).toEqual([]);
  });

  it("names the ceilings of the balancer's network and of the store", () => {
    const { ceilings } = forecast(summary(law(0, 0)), { rps: 300, link: 1 });
    expect(ceilings.link?.rps).toBeCloseTo(139.1, 1);
    expect(ceilings.link?.balancers).toBe(3);
    // The store of the examples uses 0.06 cores whatever the rate: 1.25 ms for each of 48 a second.
    expect(ceilings.store?.cores).toBe(2);
    expect(ceilings.store?.rps).toBeCloseTo(2 / (0.06 / 48), 0);
  });
});

describe('a forecast is refused', () => {
  it('when fewer than three numbers of replicas were measured', () => {
    expect(refusalsOf(summary({ 1: [10, 11], 3: [30, 31] }))).toEqual(['too-few-counts']);
  });

  it('when there is no measurement more than there are coefficients', () => {
    expect(refusalsOf(summary({ 1: [10], 2: [20], 3: [29] }))).toEqual(['too-few-points']);
  });

  it('when the replicas had no CPU of their own', () => {
    expect(refusalsOf(summary(law(0.05, 0), { isScaleOut: false, cpusPerReplica: null }))).toEqual([
      'not-scale-out',
    ]);
  });

  it('when the generator held the load back', () => {
    const rates = { ...law(0.05, 0), 4: [round(41, { throttled: ['dropped iterations: 3'] })] };
    expect(refusalsOf(summary(rates))).toEqual(['throttled']);
  });

  it('when not the quotas but the whole machine bound the replicas', () => {
    const busy = round(41, { cpuCores: { ...round(41).cpuCores, machine: 1.97 } });
    expect(refusalsOf(summary({ ...law(0.05, 0), 4: [busy, round(41)] }))).toEqual([]);
    expect(refusalsOf(summary({ ...law(0.05, 0), 4: [busy] }))).toEqual(['machine-full']);
  });

  it('when requests failed', () => {
    const rates = { ...law(0.05, 0), 3: [round(32, { errors: 9 }), round(33)] };
    expect(refusalsOf(summary(rates))).toEqual(['errors']);
  });

  it('when the law does not explain what was measured', () => {
    expect(refusalsOf(summary({ 1: [10, 30], 2: [30, 11], 3: [12, 31], 4: [29, 9] }), { rps: 10 })).toContain(
      'poor-fit',
    );
    expect(refusalsOf(summary({ 1: [10, 10], 2: [10, 10], 3: [10, 10] }), { rps: 5 })).toContain('poor-fit');
  });

  it('when the contention is more than all there is', () => {
    expect(refusalsOf(summary(law(1.4, 0)), { rps: 5 })).toEqual(['alpha-over-1']);
  });

  it('when no number of replicas carries the load', () => {
    const [refusal] = forecast(summary(law(0.05, 0.05)), { rps: 100, link: 1 }).refusals;
    expect(refusal).toMatchObject({ why: 'never', at: 4 });
  });

  it('when none carries it by the law, but its peak lies far beyond what was measured', () => {
    const [refusal] = forecast(summary(law(0, 0.003)), { rps: 1_000, link: 1 }).refusals;
    expect(refusal).toMatchObject({ why: 'peak-unseen', measured: 4 });
  });

  it('when it takes more than twice the replicas that were measured', () => {
    const { refusals, replicas } = forecast(summary(law(0, 0)), { rps: 120, link: 1 });
    expect(refusals).toMatchObject([{ why: 'extrapolated', measured: 4 }]);
    expect(replicas?.best).toBeGreaterThan(8);
  });

  it('when replicas carry it, but none so fast', () => {
    const measured = summary(law(0.05, 0.002));
    expect(refusalsOf(measured, { rps: 50, p95: 260 })).toEqual(['never-so-fast']);
    expect(refusalsOf(measured, { rps: 50 })).not.toContain('never');
  });

  it('when an upload alone takes longer than the p95 that is asked for', () => {
    expect(refusalsOf(summary(law(0, 0)), { p95: 200 })).toEqual(['p95-too-short']);
  });
});
