import { ListObjectsCommand } from '@aws-sdk/client-s3';
import { meet } from '../../store.js';
import { either, isNamed, no, type Probe } from './probe.js';

/** More than slow answers and whole seconds can account for. */
const CLOCK_MS = 60_000;

/** Whether there is a store, and whether it lets us in. */
export const ACCESS: readonly Probe[] = [
  {
    name: 'reachable',
    isNeeded: true,
    run: async ({ options }, signal) => {
      await meet(options, signal);
      return undefined;
    },
    does: either(
      'Naru talks to it',
      'Naru stays unready and answers uploads with 503 until the store answers; see S3_ENDPOINT, DNS, firewalls',
    ),
  },
  {
    name: 'clock',
    isNeeded: false,
    after: ['reachable'],
    run: async ({ options }, signal) => {
      const aheadMs = await meet(options, signal);
      if (aheadMs === undefined) return { outcome: 'skipped', detail: 'the store tells no time' };
      const seconds = Math.round(Math.abs(aheadMs) / 1000);
      const detail = `the store is ${seconds} s ${aheadMs < 0 ? 'behind' : 'ahead'}`;
      return Math.abs(aheadMs) < CLOCK_MS ? undefined : no(detail);
    },
    does: either(
      'Naru signs by the clock of this machine',
      'Naru signs by the clock of the store once that has refused; set the clock of this machine (NTP): uploadedAt goes by it',
    ),
  },
  {
    name: 'credentials',
    isNeeded: true,
    after: ['reachable'],
    run: async ({ s3, bucket }, abortSignal) => {
      try {
        await s3.send(new ListObjectsCommand({ Bucket: bucket, MaxKeys: 1 }), { abortSignal });
      } catch (error) {
        // Only those whose signature holds are told that.
        if (!isNamed(error, 'NoSuchBucket', 'AccessDenied')) throw error;
      }
      return undefined;
    },
    does: either(
      'Naru signs with them',
      'Naru stays unready; see S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY and S3_REGION, and S3_FORCE_PATH_STYLE',
    ),
  },
  {
    name: 'bucket',
    isNeeded: true,
    after: ['credentials'],
    run: async (bench, abortSignal) => {
      try {
        await bench.s3.send(new ListObjectsCommand({ Bucket: bench.bucket, MaxKeys: 1 }), { abortSignal });
      } catch (error) {
        if (!isNamed(error, 'NoSuchBucket') || !bench.options.createBucket) throw error;
        await bench.makeBucket(abortSignal);
        return { outcome: 'yes', detail: 'made for these probes' };
      }
      return undefined;
    },
    does: (outcome, { createBucket }) =>
      outcome === 'yes'
        ? `Naru keeps images there below images/${createBucket ? ', and makes it when it is missing' : ''}`
        : 'Naru stays unready; make the bucket or set S3_CREATE_BUCKET=true, and let the credentials list it',
  },
];
