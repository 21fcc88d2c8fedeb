import { z } from 'zod';

/** What replaces this has another number. */
export const VERSION = 1;

const count = z.int().nonnegative();
const amount = z.number().nonnegative();
/** Null: not known, or not to be had on this machine. */
const maybe = amount.nullable();

const cpu = z
  .object({
    replicas: maybe,
    balancer: maybe,
    store: maybe,
    generator: maybe,
    machine: maybe.describe('Everything that runs on the machine of the generator, this included.'),
  })
  .describe('Cores in use, on average; 1 is one core. Null: not to be seen from here.');

const moment = z.object({
  second: amount.describe('Since the measured load began.'),
  seconds: z.number().positive(),
  answered: count,
  errors: count,
  p95Ms: maybe,
});

const mark = z.object({ second: z.number(), what: z.enum(['killed', 'started']), replica: z.string() });

export const roundSchema = z.object({
  startedAt: z.iso.datetime(),
  durationSeconds: z.number().positive(),
  requests: count,
  uploads: count,
  errors: count,
  errorsByStatus: z.record(z.string(), count),
  rps: amount.describe('Requests answered as they should be, a second.'),
  megabytesPerSecond: amount.describe('Of images, 10^6 bytes, without HTTP.'),
  p50Ms: maybe,
  p95Ms: maybe,
  p99Ms: maybe,
  connectionsPerSecond: amount.describe('Opened by the generator.'),
  concurrentConnections: count.describe('Held open by the generator: one a client (VU).'),
  shares: z.record(z.string(), amount).describe('Of what was answered, by X-Served-By; they add up to 1.'),
  cpuCores: cpu,
  cpuByReplica: z.record(z.string(), amount).describe('Cores in use; empty: not to be seen from here.'),
  throttled: z
    .array(z.string())
    .describe(
      'How the generator held the load back, which makes this no result about Naru; empty: it did not.',
    ),
  missed: z.array(z.string()).describe('Thresholds of the script that did not hold.'),
  marks: z.array(mark).describe('What was done to the replicas meanwhile.'),
  series: z.array(moment),
});

export const runSchema = z.object({
  replicas: count,
  rounds: z.array(roundSchema).min(1),
  requests: count,
  errors: count,
  errorsByStatus: z.record(z.string(), count),
  availability: amount.describe('Of requests, those answered as they should be: 0 to 1.'),
  nines: amount.describe('Of the availability, as far as so many requests can show it: 3 is 99.9 %.'),
  rps: amount.describe('Requests answered as they should be, a second: the mean of the rounds.'),
  rpsPlusMinus: maybe.describe('Half its 95 % confidence interval over the rounds; null: one round.'),
  megabytesPerSecond: amount,
  p50Ms: maybe.describe('This and the other percentiles: the median of the rounds.'),
  p95Ms: maybe,
  p99Ms: maybe,
  connectionsPerSecond: amount,
  concurrentConnections: count,
  shares: z.record(z.string(), amount),
  cpuCores: cpu,
  cpuMsPerUpload: cpu.describe('CPU time, ms, for each request that was answered as it should be.'),
  speedup: maybe.describe(
    'Against one replica; null: one replica was not measured, or one of the two is no result.',
  ),
  speedupPlusMinus: maybe,
  efficiency: maybe.describe('speedup / replicas.'),
  saturated: z
    .array(z.enum(['replicas', 'balancer', 'store', 'generator', 'network', 'machine']))
    .describe('What had no more to give; empty: nothing was found, clients just waited for answers.'),
  throttled: z.array(z.string()),
  missed: z.array(z.string()),
});

export const summarySchema = z
  .object({
    $schema: z.string(),
    version: z.literal(VERSION),
    startedAt: z.iso.datetime(),
    finishedAt: z.iso.datetime(),
    script: z.string(),
    question: z.string().describe('Which the script answers.'),
    machine: z.object({
      cpu: z.string(),
      cores: count,
      memoryBytes: count,
      system: z.string(),
      node: z.string(),
      k6: z.string(),
    }),
    target: z.object({
      kind: z.enum(['compose', 'local', 'url']),
      url: z.string(),
      cpusPerReplica: maybe.describe('The quota of each, in cores; null: none.'),
      isScaleOut: z
        .boolean()
        .describe(
          'Whether the runs may be compared by their number of replicas: each replica had a share of CPU of its own.',
        ),
      imageBytes: maybe.describe('Of one upload, on average.'),
    }),
    settings: z.object({
      replicas: z.array(count),
      rounds: count,
      durationSeconds: amount,
      warmUpUploads: count,
      clientsPerReplica: count.nullable(),
    }),
    runs: z.array(runSchema).min(1),
  })
  .describe('What npm run loadtest measured: one run for each number of replicas.');

export type Round = z.infer<typeof roundSchema>;
export type Run = z.infer<typeof runSchema>;
export type Summary = z.infer<typeof summarySchema>;
export type Cpu = z.infer<typeof cpu>;
export type Mark = z.infer<typeof mark>;

/** The schema as JSON Schema (2020-12), which is kept in loadtest/summary.schema.json. */
export function jsonSchema(): object {
  return z.toJSONSchema(summarySchema, { io: 'output' });
}
