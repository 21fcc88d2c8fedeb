import { type SweepResult } from './sweep.js';

const WORDS = { aborted: 'aborted', gone: 'already gone', 'would-abort': 'would abort', failed: 'FAILED' };

/** For a person, or the mail that cron sends. */
export function toText({ bucket, before, uploads, left, images, orphans, dryRun }: SweepResult): string {
  const count = (wanted: string) => uploads.filter(({ outcome }) => outcome === wanted).length;
  const counts = dryRun
    ? `${count('would-abort')} would be aborted`
    : `${count('aborted')} aborted, ${count('gone')} already gone, ${count('failed')} failed`;
  return [
    ...uploads.map(
      ({ key, initiated, outcome, error }) =>
        `${WORDS[outcome].padEnd(13)} ${key}  begun ${initiated}${error ? `  ${error}` : ''}`,
    ),
    ...orphans.map(
      ({ key, bytes, lastModified, reason }) =>
        `${'orphan'.padEnd(13)} ${JSON.stringify(key)}  ${bytes} bytes, ${lastModified}  ${reason}`,
    ),
    `bucket ${bucket}, unfinished uploads begun before ${before}: ${counts}; ` +
      `${left.young} younger and ${left.foreign} of others left alone`,
    `objects below images/: ${images} of Naru, ${orphans.length} orphans, which are reported and never deleted\n`,
  ].join('\n');
}
