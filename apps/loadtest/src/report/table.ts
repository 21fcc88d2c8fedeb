import { type Comparison } from '../figures/compare.js';
import { type Forecast, type Question } from '../figures/forecast.js';
import { LINK_BYTES_PER_SECOND } from '../figures/runs.js';
import { type Cpu, type Run, type Summary } from '../figures/summary.js';
import { type Coefficient } from '../figures/usl.js';
import { type Language } from '../options.js';
import { type Words, WORDS } from './words.js';

/** A table as it is shown on the terminal and in the report: a head, and a row for each run. */
export interface Table {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** What each number of replicas brought. */
export function resultTable(summary: Summary, lang: Language): Table {
  const words = WORDS[lang];
  return {
    head: [
      words.replicas,
      words.uploadsPerSecond,
      'MB/s',
      'p50 / p95 / p99, ms',
      words.errors,
      words.availability,
      words.connections,
      words.cpu,
      words.speedup,
      words.efficiency,
      words.saturated,
    ],
    rows: summary.runs.map((run) => [
      String(run.replicas),
      within(run.rps, run.rpsPlusMinus),
      run.megabytesPerSecond.toFixed(1),
      [run.p50Ms, run.p95Ms, run.p99Ms].map((value) => shown(value, 0)).join(' / '),
      errorsOf(run),
      availabilityOf(run),
      `${run.connectionsPerSecond.toFixed(1)} (${run.concurrentConnections})`,
      cpuOf(run.cpuMsPerUpload),
      // What shares a machine has no speed-up to speak of.
      summary.target.isScaleOut && run.speedup !== null ? within(run.speedup, run.speedupPlusMinus, 2) : '-',
      summary.target.isScaleOut && run.efficiency !== null ? `${(100 * run.efficiency).toFixed(0)} %` : '-',
      run.saturated.map((part) => words.parts[part]).join(', ') || words.nothing,
    ]),
  };
}

/** The shares of each run, `replica share`, one line each. */
export function shareLines({ runs }: Summary): string[] {
  return runs.map(({ replicas, shares }) => {
    const all = Object.entries(shares).map(([id, share]) => `${id} ${(100 * share).toFixed(1)} %`);
    return `${replicas}: ${all.join(', ')}`;
  });
}

/** What has to be known to read the figures. */
export function notes(summary: Summary, lang: Language): string[] {
  const words = WORDS[lang];
  const { target, runs } = summary;
  const most = Math.max(...runs.map(({ megabytesPerSecond }) => megabytesPerSecond));
  const missed = [...new Set(runs.flatMap((run) => run.missed))];
  const full = fullOf(summary);
  return [
    ...runs
      .filter(({ throttled }) => throttled.length > 0)
      .map((run) => `${run.replicas}: ${words.throttled} (${run.throttled.join('; ')})`),
    standing(summary, words),
    ...(target.isScaleOut && full.length > 0 ? [words.machineFull(full.join(', '))] : []),
    ...(target.imageBytes
      ? [
          words.network(
            ((100 * most * 1e6) / LINK_BYTES_PER_SECOND).toFixed(0),
            Math.round(LINK_BYTES_PER_SECOND / target.imageBytes),
          ),
        ]
      : []),
    ...(missed.length > 0 ? [words.missed(missed.join(', '))] : []),
  ];
}

/** The sentence on top of a report; undefined: nothing may be said of scaling. */
export function headline(summary: Summary, lang: Language): string | undefined {
  const most = summary.runs.at(-1);
  if (!summary.target.isScaleOut || most?.speedup == null || most.replicas === 1) return undefined;
  if (fullOf(summary).length > 0) return undefined;
  return WORDS[lang].headline(most.replicas, most.speedup.toFixed(2));
}

/** For the terminal. */
export function resultText(summary: Summary, lang: Language): string {
  const words = WORDS[lang];
  const top = headline(summary, lang);
  return [
    '',
    ...(top === undefined ? [] : [`  ${top}.`, '']),
    ...drawn(resultTable(summary, lang)),
    '',
    `  ${words.shares}`,
    ...shareLines(summary).map((line) => `    ${line}`),
    '',
    ...notes(summary, lang).map((line) => `  ${line}`),
    '',
  ].join('\n');
}

export function comparisonText({ changes, differing, unmatched }: Comparison, lang: Language): string {
  const words = WORDS[lang];
  const rows = changes.map(({ replicas, metric, before, after, interval, verdict }) => [
    String(replicas),
    words.metrics[metric],
    before.toFixed(1),
    after.toFixed(1),
    before === 0 ? '-' : `${signed((100 * (after - before)) / before)} %`,
    interval === undefined ? '-' : `${signed(interval.low)} … ${signed(interval.high)}`,
    words.verdicts[verdict],
  ]);
  const isSame = changes.every(({ verdict }) => verdict === 'noise');
  return [
    '',
    ...drawn({ head: [words.replicas, '', 'A', 'B', words.change, words.error, ''], rows }),
    '',
    ...(isSame ? [`  ${words.nothingChanged}`] : []),
    `  ${words.each95}`,
    ...differing.map((all) => `  ${words.differing(...all)}`),
    ...(unmatched.length > 0 ? [`  ${words.unmatched(unmatched.join(', '))}`] : []),
    '',
  ].join('\n');
}

export function forecastText(summary: Summary, asked: Question, found: Forecast, lang: Language): string {
  const words = WORDS[lang];
  const { fit, refusals, replicas, ceilings } = found;
  const load = words.load(asked.rps, asked.p95);
  const { cpusPerReplica } = summary.target;
  return [
    '',
    ...(refusals.length > 0
      ? [`  ${load}`, `  ${words.noAnswer}`, ...refusals.map((each) => `    ${words.refusal(each)}`)]
      : replicas
        ? [`  ${words.answer(load, replicas.best, replicas.low, highOf(replicas.high))}`]
        : []),
    ...(cpusPerReplica !== null ? [`  ${words.ofSize(cpusPerReplica)}`] : []),
    '',
    ...(fit
      ? [
          `  ${words.fit}: ${words.one} ${ranged(fit.lambda, 1)}, ${words.contention} ${ranged(fit.alpha, 3)}, ${words.coherence} ${ranged(fit.beta, 4)}, R² ${shown(fit.rSquared, 3)}`,
        ]
      : []),
    ...(ceilings.link
      ? [`  ${words.link(asked.link, ceilings.link.rps.toFixed(0), ceilings.link.balancers)}`]
      : []),
    ...(ceilings.store
      ? [
          `  ${words.store(ceilings.store.rps.toFixed(0), ceilings.store.cores, asked.rps > ceilings.store.rps)}`,
        ]
      : []),
    ...(asked.p95 === undefined ? [] : [`  ${words.assumption}`]),
    '',
  ].join('\n');
}

/** Numbers of replicas with which the machine itself had no more to give, so that quotas were not what bound them. */
function fullOf({ runs }: Summary): number[] {
  return runs.filter(({ saturated }) => saturated.includes('machine')).map(({ replicas }) => replicas);
}

function standing({ target }: Summary, words: Words): string {
  if (target.kind === 'url') return words.url;
  return target.isScaleOut && target.cpusPerReplica !== null
    ? words.quota(target.cpusPerReplica)
    : words.noQuota;
}

function drawn({ head, rows }: Table): string[] {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => width(row[column] ?? ''))));
  return all.map((row) =>
    `  ${row.map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - width(cell))).join('   ')}`.trimEnd(),
  );
}

/** Of a text on a terminal, where a letter of Hangul takes two columns. */
function width(text: string): number {
  return text.length + (text.match(/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uff00-\uff60]/g) ?? []).length;
}

function highOf(high: number): string {
  return Number.isFinite(high) ? String(high) : '∞';
}

function ranged({ value, low, high }: Coefficient, digits: number): string {
  return `${value.toFixed(digits)} (${Math.max(0, low).toFixed(digits)} … ${high.toFixed(digits)})`;
}

function within(value: number, plusMinus: number | null, digits = 1): string {
  return !plusMinus ? value.toFixed(digits) : `${value.toFixed(digits)} ± ${plusMinus.toFixed(digits)}`;
}

function errorsOf({ errors, requests, errorsByStatus }: Run): string {
  if (errors === 0) return `0 / ${requests}`;
  const statuses = Object.entries(errorsByStatus).map(
    ([status, count]) => `${count} × ${status === '0' ? '—' : status}`,
  );
  return `${errors} / ${requests} (${statuses.join(', ')})`;
}

/** What never failed has been seen to have so many nines at least. */
function availabilityOf({ availability, nines, errors }: Run): string {
  const digits = Math.max(1, Math.min(5, Math.floor(nines) - 1));
  return `${errors === 0 ? '≥ ' : ''}${nines.toFixed(1)} × 9 (${(100 * availability).toFixed(errors === 0 ? 0 : digits)} %)`;
}

/** Replicas, balancer, store, generator. */
function cpuOf({ replicas, balancer, store, generator }: Cpu): string {
  return [replicas, balancer, store, generator].map((part) => shown(part, 1)).join(' + ');
}

function shown(value: number | null, digits: number): string {
  return value === null ? '?' : value.toFixed(digits);
}

function signed(value: number): string {
  return `${value > 0 ? '+' : ''}${value.toFixed(1)}`;
}
