// What a run found: a table for whoever watches, and a file for programs.
import { MAX_REPLICAS, TARGET } from './target.js';

/**
 * What a script writes to the file named by `-e RESULT=path`, as JSON. Everything is about the measured load alone: what
 * setup() asked, the warm-up and the reads that check stored bytes are left out.
 *
 * @typedef {object} Result
 * @property {1} version of this shape; another number means that something here is named or counted otherwise
 * @property {string} script its name without folder and ending: `one-vs-many`
 * @property {string} question that the script answers
 * @property {string} startedAt RFC 3339, UTC: when the measured load began, the warm-up being over
 * @property {number} durationSeconds of the measured load; what began in it was waited for and counts, so
 *   `uploads / durationSeconds` is the throughput
 * @property {string} target BASE_URL, without a user or password that may stand in it
 * @property {Record<string, string | number>} settings by the name of their variable, as they were in force; no API_KEY
 * @property {number} requests sent, whatever became of them
 * @property {number} uploads requests answered with 201
 * @property {number} images acknowledged by those
 * @property {number} bytes of images, acknowledged or read: what went over the line one way or the other, without HTTP
 * @property {number} errors requests that were not answered as they should be
 * @property {Record<string, number>} errorsByStatus adds up to `errors`; '0': no answer at all, '200' and '201': answered,
 *   but not with what was asked for, 'other': a status that nobody thought of
 * @property {Latency | null} latencyMs of what was answered as it should be; null: nothing was
 * @property {Record<string, {requests: number, errors: number, latencyMs: Latency | null}>} byKind the same by what was
 *   asked: `upload`, `read`, `list`, `delete`, as far as the script asks it
 * @property {Record<string, number>} byReplica requests answered as they should be, by X-Served-By; those that setup()
 *   found, even if they answered none; '(late)': all that turned up afterwards
 * @property {number} connections opened since the warm-up began
 * @property {{verified: number, altered: number}} stored images read back and compared with what was sent, and those of them
 *   that were not the same or not there
 * @property {number} droppedIterations what the open model should have sent and k6 didn't
 * @property {number} vusMax VUs, all of them there from the beginning
 * @property {boolean} vusExhausted all of them were busy at once, in an open model
 * @property {boolean} throttled the generator held the load back: this is not a result about the service
 * @property {boolean} aborted the run ended before its time: by a threshold that aborts, or by a person
 * @property {{metric: string, threshold: string, ok: boolean}[]} thresholds
 * @property {Moment[]} [series] the measured load, piece by piece, 60 pieces at most
 * @property {{rate: number, asked: number, answered: number, p95Ms: number | null,
 *   verdict: 'held' | 'MISSED' | 'cut short' | 'not tried'}[]} [steps] of breaking-point
 * @property {number | null} [held] of breaking-point: uploads a second of the last step that held
 * @property {{ratio: number, byStatus: Record<string, number>}} [cache] of cached-reads: share of reads that nginx answered
 *   from a copy without asking anybody, and all of them by X-Cache
 * @property {number} [brokenReads] of fault: reads that broke off in mid-answer and were right at the second try
 */

/** @typedef {{p50: number, p95: number, p99: number, max: number}} Latency k6's http_req_duration, ms */

/**
 * @typedef {object} Moment what began in [second, second + seconds)
 * @property {number} second since startedAt
 * @property {number} seconds
 * @property {number} answered requests answered as they should be
 * @property {number} errors
 * @property {number | null} p95Ms
 */

// k6 keeps a count per value of a tag only for values named before the test starts, and only for those with a threshold.
// So replicas get numbers, which setup() gives out, and these are the thresholds that always hold.
const ALWAYS = {
  naru_answered: 'count>=0',
  naru_errors: 'count>=0',
  naru_failed: 'rate>=0',
  naru_latency: 'max>=0',
};
export const LATE = 'late';
const SLOTS = [...Array.from({ length: MAX_REPLICAS }, (_, number) => String(number)), LATE];
export const STATUSES =
  '0 200 201 204 206 301 302 304 307 308 400 401 403 404 405 408 409 412 413 415 416 422 429 499 500 502 503 504'
    .split(' ')
    .concat('other');
/** The most pieces of a series. */
export const PIECES = 60;

/** The thresholds that have k6 count by replica, status, kind and piece of time. */
export function counted(kinds, pieces) {
  const each = (metric, tag, values) =>
    values.map((value) => [`${metric}{${tag}:${value}}`, [ALWAYS[metric]]]);
  const numbers = Array.from({ length: pieces }, (_, number) => number);
  return Object.fromEntries([
    ...each('naru_answered', 'replica', SLOTS),
    ...each('naru_errors', 'status', STATUSES),
    ...['naru_failed', 'naru_latency'].flatMap((metric) => [
      ...each(metric, 'kind', kinds),
      ...each(metric, 'piece', numbers),
    ]),
  ]);
}

/**
 * A script's handleSummary. `settings` are the script's, `load` what load() made of them. `more`, given the result and a
 * function that looks up `(metric, value)`, adds to the result in place and returns further lines for the table.
 */
export function summary({ script, settings, load, more = () => [] }) {
  // The comment that the script opens with, up to an empty line.
  const source = open(import.meta.resolve(`../${script}.js`));
  const [, asked = ''] = /^\/\/ Question: ((?:.+\n)+?)\/\/\n/.exec(source) ?? [];
  const question = asked.replace(/\n\/\/ /g, ' ').trim();

  return (data) => {
    // setup() has refused the target, and said why.
    if (!data.setup_data) return {};
    const result = resultOf({ script, question, settings, load, data });
    const value = (metric, name) => data.metrics[metric]?.values[name] ?? 0;
    const lines = more(result, value);
    const file = __ENV.RESULT ? { [__ENV.RESULT]: `${JSON.stringify(result)}\n` } : {};
    return { stdout: table(result, lines), ...file };
  };
}

/** @returns {Result} */
function resultOf({ script, question, settings, load, data: { metrics, setup_data: found } }) {
  const value = (metric, name) => metrics[metric]?.values[name] ?? 0;
  const elapsed = (Date.now() - found.at) / 1000 - load.warmUp;
  const durationSeconds =
    load.duration === undefined
      ? value('naru_last_answer', 'max')
      : Math.max(0, Math.min(load.duration, elapsed));
  const dropped = value('dropped_iterations', 'count');
  return {
    version: 1,
    script,
    question,
    startedAt: new Date(found.at + load.warmUp * 1000).toISOString(),
    durationSeconds: rounded(durationSeconds),
    target: TARGET,
    settings,
    requests: requestsOf(metrics, 'naru_failed'),
    uploads: value('naru_uploads', 'count'),
    images: value('naru_images', 'count'),
    bytes: value('naru_bytes', 'count'),
    errors: value('naru_failed', 'passes'),
    errorsByStatus: counts(STATUSES, (status) => value(`naru_errors{status:${status}}`, 'count')),
    latencyMs: latencyOf(metrics, 'naru_latency'),
    byKind: Object.fromEntries(
      load.kinds.map((kind) => [
        kind,
        {
          requests: requestsOf(metrics, `naru_failed{kind:${kind}}`),
          errors: value(`naru_failed{kind:${kind}}`, 'passes'),
          latencyMs: latencyOf(metrics, `naru_latency{kind:${kind}}`),
        },
      ]),
    ),
    byReplica: byReplica(found.replicas, (slot) => value(`naru_answered{replica:${slot}}`, 'count')),
    connections: value('naru_connections', 'count'),
    stored: {
      verified: requestsOf(metrics, 'naru_stored'),
      altered: value('naru_stored', 'fails'),
    },
    droppedIterations: dropped,
    vusMax: load.vus,
    vusExhausted: load.isOpen && (dropped > 0 || value('vus', 'max') >= load.vus),
    throttled: dropped > 0,
    aborted:
      load.duration === undefined
        ? value('iterations', 'count') < load.iterations
        : elapsed < load.duration - 1,
    thresholds: thresholdsOf(metrics),
    ...(load.pieces > 0 ? { series: seriesOf(metrics, load, durationSeconds) } : {}),
  };
}

// k6 counts what was not 0 as passes; here that is a request that failed.
function requestsOf(metrics, metric) {
  const { passes = 0, fails = 0 } = metrics[metric]?.values ?? {};
  return passes + fails;
}

function latencyOf(metrics, metric) {
  const values = metrics[metric]?.values;
  if (!values || values.max === 0) return null;
  return {
    p50: rounded(values.med),
    p95: rounded(values['p(95)']),
    p99: rounded(values['p(99)']),
    max: rounded(values.max),
  };
}

function byReplica(replicas, count) {
  const found = replicas.map((id, slot) => [id, count(slot)]);
  const late = count(LATE);
  return Object.fromEntries(late > 0 ? [...found, ['(late)', late]] : found);
}

function counts(names, count) {
  return Object.fromEntries(names.map((name) => [name, count(name)]).filter(([, number]) => number > 0));
}

function thresholdsOf(metrics) {
  return Object.entries(metrics).flatMap(([metric, { thresholds = {} }]) =>
    Object.entries(thresholds)
      .filter(([threshold]) => !Object.values(ALWAYS).includes(threshold))
      .map(([threshold, { ok }]) => ({ metric, threshold, ok })),
  );
}

function seriesOf(metrics, { pieces, pieceSeconds }, durationSeconds) {
  return Array.from({ length: pieces }, (_, number) => {
    const { passes = 0, fails = 0 } = metrics[`naru_failed{piece:${number}}`]?.values ?? {};
    const second = number * pieceSeconds;
    return {
      second,
      seconds: rounded(Math.min(pieceSeconds, durationSeconds - second)),
      answered: fails,
      errors: passes,
      p95Ms: latencyOf(metrics, `naru_latency{piece:${number}}`)?.p95 ?? null,
    };
  }).filter(({ seconds }) => seconds > 0);
}

function table(result, more) {
  const { byKind, byReplica, durationSeconds, errors, requests, stored } = result;
  const answered = Object.values(byReplica).reduce((sum, count) => sum + count, 0);
  const perSecond = (number, digits = 1) =>
    durationSeconds > 0 ? (number / durationSeconds).toFixed(digits) : '-';
  const missed = result.thresholds.filter(({ ok }) => !ok);
  const statuses = Object.entries(result.errorsByStatus).map(
    ([status, count]) => `${count} × ${status === '0' ? 'no answer' : status}`,
  );
  const lines = [
    `${result.script}: ${result.question}`,
    '',
    `${requests - errors} of ${requests} requests answered as they should be, in ${durationSeconds.toFixed(1)} s: ` +
      `${perSecond(requests - errors)} a second, ${perSecond(result.bytes / 1e6)} MB/s`,
    ...(result.uploads > 0 ? [`${result.uploads} uploads stored ${result.images} images`] : []),
    '',
    row('', 'requests', 'median', 'p95', 'p99', 'slowest'),
    ...Object.entries(byKind).map(([kind, { requests, latencyMs }]) =>
      row(kind, requests, ...['p50', 'p95', 'p99', 'max'].map((name) => milliseconds(latencyMs?.[name]))),
    ),
    '',
    row('replica', 'answered', 'share'),
    ...Object.entries(byReplica).map(([id, count]) =>
      row(id, count, answered > 0 ? `${((100 * count) / answered).toFixed(1)} %` : '-'),
    ),
    '',
    `${result.connections} connections opened, ${result.vusMax} VUs`,
    `${stored.verified - stored.altered} of ${stored.verified} images read back are what was sent`,
    ...(errors > 0 ? [`${errors} errors: ${statuses.join(', ')}`] : []),
    ...more,
    '',
    ...missed.map(({ metric, threshold }) => `MISSED  ${metric} ${threshold}`),
    ...(result.throttled ? [throttle(result)] : []),
    ...(result.aborted ? ['CUT SHORT  the run ended before its time'] : []),
    ...(missed.length > 0 || result.throttled || result.aborted ? [] : ['every threshold held']),
  ];
  return `\n${lines.map((line) => `  ${line}`.trimEnd()).join('\n')}\n\n`;
}

function throttle({ droppedIterations, vusMax }) {
  return (
    `NOT A RESULT  k6 itself held the load back: ${droppedIterations} iterations were not begun, since all ${vusMax} ` +
    'VUs were busy. Give it more (-e VUS=…), or ask for less'
  );
}

/** One line of a table. */
export function row(name, ...cells) {
  return name.padEnd(24) + cells.map((cell) => String(cell).padStart(10)).join('');
}

/** As a cell of a table. */
export function milliseconds(value) {
  return value === undefined || value === null ? '-' : `${value.toFixed(0)} ms`;
}

function rounded(value) {
  return Math.round(value * 1000) / 1000;
}
