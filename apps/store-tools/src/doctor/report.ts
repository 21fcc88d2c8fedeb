import { styleText } from 'node:util';
import { type Diagnosis } from './doctor.js';
import { type Outcome } from './probes/probe.js';

const WORDS: Record<Outcome, string> = {
  yes: 'supported',
  no: 'not supported',
  failed: 'failed',
  skipped: 'not tried',
};

/** A table for a terminal. */
export function toText({ endpoint, bucket, isReady, probes, left }: Diagnosis): string {
  const width = Math.max(...probes.map(({ name }) => name.length));
  const lines = probes.map(({ name, isNeeded, outcome, detail, does }) => {
    const word = WORDS[outcome].padEnd(WORDS.no.length);
    const color = outcome === 'yes' ? 'green' : isNeeded ? 'red' : 'yellow';
    const shown = process.stdout.isTTY ? styleText(color, word) : word;
    const text = [detail, outcome === 'skipped' ? '' : does].filter(Boolean).join(' → ');
    return `  ${name.padEnd(width)}  ${shown}  ${text}`.trimEnd();
  });
  const missing = probes.filter(({ isNeeded, outcome }) => isNeeded && outcome !== 'yes');
  return [
    `${endpoint}, bucket ${bucket}`,
    '',
    ...lines,
    '',
    ...left.map((what) => `Left behind, delete it by hand: ${what}`),
    isReady
      ? 'Everything that Naru needs is there.'
      : `What Naru needs and was not found: ${missing.map(({ name }) => name).join(', ')}.`,
    '',
  ].join('\n');
}
