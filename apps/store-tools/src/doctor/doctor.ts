import { type S3Options } from '#object-store';
import { bucketUrl, describe, isRefusal, isSilence, NoStoreError } from '../store.js';
import { atMost } from '../time-limit.js';
import { Bench } from './bench.js';
import { ACCESS } from './probes/access.js';
import { EXTRAS } from './probes/extras.js';
import { OBJECTS } from './probes/objects.js';
import { type Finding, type Outcome, type Probe } from './probes/probe.js';

const PROBES = [...ACCESS, ...OBJECTS, ...EXTRAS];

/** For one probe, of some requests each. */
const PROBE_MS = 5_000;
/** For all of them; clearing up comes on top. Together they stay below 30 s. */
const EXAMINATION_MS = 22_000;
const CLEAR_MS = 6_000;
/** After so many silent probes in a row nothing more is asked. */
const SILENCES = 2;

export interface Diagnosis {
  readonly endpoint: string;
  readonly bucket: string;
  /** Whether everything is there that Naru needs. */
  readonly isReady: boolean;
  readonly probes: readonly {
    readonly name: string;
    readonly isNeeded: boolean;
    readonly outcome: Outcome;
    readonly detail: string;
    readonly does: string;
  }[];
  /** What could not be cleared away. */
  readonly left: readonly string[];
}

/**
 * Tries one thing after the other, then clears away what it put, also when `signal` is aborted. Ends within 30 s.
 *
 * @throws NoStoreError when what answers is no store.
 */
export async function examine(options: S3Options, signal: AbortSignal): Promise<Diagnosis> {
  const bench = new Bench(options);
  const found = new Map<string, Finding>();
  const end = Date.now() + EXAMINATION_MS;
  let silences = 0;
  let left: readonly string[] = [];
  try {
    for (const probe of PROBES) {
      const finding = skip(probe, found, { silences, isLate: Date.now() >= end, signal });
      found.set(probe.name, finding ?? (await tryOut(probe, bench, end, signal)));
      const { detail } = found.get(probe.name) ?? {};
      if (finding === undefined) silences = detail?.startsWith('no answer within') ? silences + 1 : 0;
      // Nobody to ask further.
      if (probe.name === 'reachable' && found.get(probe.name)?.outcome !== 'yes') silences = SILENCES;
    }
  } finally {
    left = await bench.clear(CLEAR_MS);
  }
  const probes = PROBES.map(({ name, isNeeded, does }) => {
    const { outcome, detail = '' } = found.get(name) ?? { outcome: 'skipped' };
    const isUnknown = outcome === 'failed' && !isNeeded;
    return {
      name,
      isNeeded,
      outcome,
      detail,
      does: isUnknown ? 'try again when the store is well' : does(outcome, options),
    };
  });
  return {
    endpoint: bucketUrl(options).origin,
    bucket: options.bucket,
    isReady: probes.every(({ isNeeded, outcome }) => !isNeeded || outcome === 'yes'),
    probes,
    left,
  };
}

function skip(
  { after = [] }: Probe,
  found: ReadonlyMap<string, Finding>,
  { silences, isLate, signal }: { silences: number; isLate: boolean; signal: AbortSignal },
): Finding | undefined {
  if (signal.aborted) return { outcome: 'skipped', detail: 'interrupted' };
  if (silences >= SILENCES) return { outcome: 'skipped', detail: 'the store does not answer' };
  if (isLate) return { outcome: 'skipped', detail: 'the store is too slow' };
  const missing = after.find((name) => found.get(name)?.outcome !== 'yes');
  return missing === undefined ? undefined : { outcome: 'skipped', detail: `needs ${missing}` };
}

async function tryOut(probe: Probe, bench: Bench, end: number, signal: AbortSignal): Promise<Finding> {
  try {
    const ms = Math.min(PROBE_MS, Math.max(1, end - Date.now()));
    return (await atMost(ms, signal, (signal) => probe.run(bench, signal))) ?? { outcome: 'yes' };
  } catch (error) {
    if (error instanceof NoStoreError) throw error;
    return { outcome: isRefusal(error) && !isSilence(error) ? 'no' : 'failed', detail: describe(error) };
  }
}
