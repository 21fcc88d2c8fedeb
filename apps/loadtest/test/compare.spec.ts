import { compare } from '../src/figures/compare.js';
import { comparisonText } from '../src/report/table.js';
import { round, summary } from './examples.js';

describe('a comparison', () => {
  it('tells a change from noise', () => {
    const before = summary({ 1: [10, 10.2, 9.8], 3: [29, 30, 31] });
    const after = summary({ 1: [12.1, 12, 11.9], 3: [28.5, 30.2, 31.1] });
    const verdicts = compare(before, after)
      .changes.filter(({ metric }) => metric === 'rps')
      .map(({ replicas, verdict }) => [replicas, verdict]);
    expect(verdicts).toEqual([
      [1, 'better'],
      [3, 'noise'],
    ]);
  });

  it('takes less latency and fewer errors for better', () => {
    const before = summary({
      1: [round(10, { p95Ms: 500, errors: 5 }), round(10, { p95Ms: 505, errors: 6 })],
    });
    const after = summary({
      1: [round(10, { p95Ms: 400, errors: 0 }), round(10, { p95Ms: 402, errors: 1 })],
    });
    const found = compare(before, after).changes;
    for (const metric of ['p95Ms', 'errors']) {
      expect(found.find((change) => change.metric === metric)?.verdict).toBe('better');
    }
    expect(compare(after, before).changes.find(({ metric }) => metric === 'p95Ms')?.verdict).toBe('worse');
  });

  it('does not judge by one round', () => {
    const found = compare(summary({ 1: [10] }), summary({ 1: [20] })).changes;
    expect(new Set(found.map(({ verdict }) => verdict))).toEqual(new Set(['unknown']));
  });

  it('says in what the two differ, and what only one has', () => {
    const found = compare(
      summary({ 1: [10, 11], 2: [20, 21] }),
      summary({ 1: [10, 11] }, { cpusPerReplica: 0.5 }),
    );
    expect(found.differing).toEqual([['cpus per replica', '0.2', '0.5']]);
    expect(found.unmatched).toEqual([2]);
    const text = comparisonText(found, 'en');
    expect(text).toContain('they differ in cpus per replica: 0.2, then 0.5');
    expect(text).toContain('only one of them has 2 replicas');
  });
});
