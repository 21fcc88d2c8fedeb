import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { toRun, withSpeedups } from '../src/figures/runs.js';
import { jsonSchema, summarySchema } from '../src/figures/summary.js';
import { round, summary } from './examples.js';

const CAPACITY = { coresPerReplica: 0.2, cores: 2 };

describe('a run', () => {
  it('is the mean of its rounds, with their interval, and the median of their percentiles', () => {
    const run = toRun(
      1,
      [round(9, { p95Ms: 400 }), round(10, { p95Ms: 900 }), round(11, { p95Ms: 410 })],
      CAPACITY,
    );
    expect(run.rps).toBeCloseTo(10);
    expect(run.rpsPlusMinus).toBeCloseTo(2.484, 2);
    expect(run.p95Ms).toBe(410);
  });

  it('counts every request and every error', () => {
    const failed = round(10, { errors: 16, errorsByStatus: { '503': 16 } });
    const run = toRun(1, [failed, round(10)], CAPACITY);
    expect(run).toMatchObject({
      requests: 320,
      errors: 16,
      errorsByStatus: { '503': 16 },
      availability: 0.95,
    });
  });

  it('adds up shares by what was answered', () => {
    const rounds = [round(10, { shares: { a: 1, b: 0 } }), round(30, { shares: { a: 0.5, b: 0.5 } })];
    expect(toRun(2, rounds, CAPACITY).shares).toEqual({ a: 0.625, b: 0.375 });
  });

  it('tells what an upload costs each part', () => {
    const run = toRun(1, [round(10)], CAPACITY);
    expect(run.cpuMsPerUpload.replicas).toBeCloseTo(20);
    expect(run.cpuMsPerUpload.generator).toBeCloseTo(5);
  });

  it('names what had no more to give', () => {
    const used = (changes: object) =>
      toRun(1, [round(10, { cpuCores: { ...round(10).cpuCores, replicas: 0.1, ...changes } })], CAPACITY)
        .saturated;
    expect(used({})).toEqual([]);
    expect(used({ replicas: 0.19 })).toEqual(['replicas']);
    expect(used({ store: 1.9 })).toEqual(['store']);
    expect(used({ balancer: 1.9 })).toEqual(['balancer']);
    expect(used({ generator: 1.75, machine: 1.95 })).toEqual(['generator', 'machine']);
    expect(toRun(9, [round(130)], CAPACITY).saturated).toEqual(['network']);
  });
});

describe('speed-up', () => {
  it('is against one replica, with the error of the quotient', () => {
    const [, three] = withSpeedups(summary({ 1: [9, 10, 11], 3: [28, 30, 32] }).runs);
    expect(three!.speedup).toBeCloseTo(3);
    expect(three!.efficiency).toBeCloseTo(1);
    expect(three!.speedupPlusMinus).toBeCloseTo(3 * Math.hypot(0.2484, 4.968 / 30), 2);
  });

  it('is none without a run of one replica, or when the generator held the load back', () => {
    const throttled = { throttled: ['dropped iterations: 1'] };
    expect(summary({ 2: [20], 4: [40] }).runs.map(({ speedup }) => speedup)).toEqual([null, null]);
    expect(summary({ 1: [10], 2: [round(20, throttled)] }).runs.map(({ speedup }) => speedup)).toEqual([
      1,
      null,
    ]);
    expect(summary({ 1: [round(10, throttled)], 2: [20] }).runs.map(({ speedup }) => speedup)).toEqual([
      null,
      null,
    ]);
  });
});

describe('loadtest/summary.schema.json', () => {
  const path = join(import.meta.dirname, '../../../loadtest/summary.schema.json');
  const kept: unknown = JSON.parse(readFileSync(path, 'utf8'));

  it('is what the code reads and writes', () => {
    expect(kept).toEqual(JSON.parse(JSON.stringify(jsonSchema())));
  });

  it('accepts a result and refuses one that lacks what is promised', () => {
    const validate = new Ajv2020({ strict: false }).addFormat('date-time', true).compile(kept as object);
    const whole = summary({ 1: [10, 11], 3: [30, 31] });
    expect(validate(whole)).toBe(true);
    for (const name of ['replicas', 'rps', 'errors', 'p95Ms', 'shares', 'speedup']) {
      const [first, second] = whole.runs;
      expect(validate({ ...whole, runs: [first, { ...second, [name]: undefined }] })).toBe(false);
    }
    expect(summarySchema.safeParse({ ...whole, version: 2 }).success).toBe(false);
  });
});
