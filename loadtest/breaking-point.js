// Question: How many photographs a second does Naru take before answers come late or not at all?
//
//   k6 run loadtest/breaking-point.js
//   k6 run -e START=50 -e STEP=10 -e MAX_RATE=200 loadtest/breaking-point.js
//
// An open model: each step sends STEP photographs a second more than the one before, whether or not they are answered,
// until 5 % of the answers take longer than P95_MS, 1 % fail, or clients run out. Breaking it is what this is for, so k6
// then exits with 99 as for every missed threshold. What it uploads stays in the bucket.
import { form, openImages } from './lib/images.js';
import { isSampled, load, verify } from './lib/load.js';
import { milliseconds, row, summary } from './lib/result.js';
import { seconds, settings, share, whole } from './lib/settings.js';

export { setup } from './lib/load.js';

const chosen = settings({
  START: whole(5, 1, 10_000),
  STEP: whole(5, 1, 10_000),
  MAX_RATE: whole(100, 1, 10_000),
  STEP_DURATION: seconds(10, 2, 600),
  WARM_UP: seconds(5, 0, 600),
  P95_MS: whole(1000, 1, 60_000),
  VUS: whole(0, 0, 10_000),
  SAMPLE: share(0.01),
});
const { START, STEP, MAX_RATE, STEP_DURATION, WARM_UP, P95_MS } = chosen;
const MAX_STEPS = 60;
if (START > MAX_RATE || (MAX_RATE - START) / STEP >= MAX_STEPS) {
  throw new Error(
    `START=${START}, STEP=${STEP} and MAX_RATE=${MAX_RATE} have to make 1 to ${MAX_STEPS} steps. Nothing was sent.`,
  );
}
const rates = [];
for (let rate = START; rate <= MAX_RATE; rate += STEP) rates.push(rate);
// By Little's law so many clients wait at once when an answer takes twice as long as it may: a service that keeps more
// of them waiting is too slow, and with fewer of them it can't be told from a generator that is.
const vusFor = (rate) => Math.max(10, Math.ceil((2 * rate * P95_MS) / 1000));
// Of a step. One may slip into the next.
const enough = (rate) => Math.floor(0.95 * rate * STEP_DURATION - 1);
const vus = chosen.VUS || vusFor(rates.at(-1));

const photograph = form(openImages('900kB'));
const ramp = load({
  scenario: {
    executor: 'ramping-arrival-rate',
    startRate: START,
    timeUnit: '1s',
    preAllocatedVUs: vus,
    maxVUs: vus,
    stages: [
      ...(WARM_UP > 0 ? [{ target: START, duration: `${WARM_UP}s` }] : []),
      ...rates.flatMap((target) => [
        { target, duration: '0s' },
        { target, duration: `${STEP_DURATION}s` },
      ]),
    ],
    gracefulStop: `${Math.ceil((2 * P95_MS) / 1000)}s`,
  },
  warmUp: WARM_UP,
  duration: rates.length * STEP_DURATION,
  piece: STEP_DURATION,
  thresholds: {
    dropped_iterations: [{ threshold: 'count<1', abortOnFail: true }],
    ...Object.fromEntries(
      rates.flatMap((rate, step) => {
        // The first answers of a step are too few to judge it by.
        const delayAbortEval = `${WARM_UP + (step + 0.5) * STEP_DURATION}s`;
        const abort = (threshold) => [{ threshold, abortOnFail: true, delayAbortEval }];
        return [
          [`naru_failed{piece:${step}}`, abort('rate<0.01')],
          [`naru_latency{piece:${step}}`, abort(`p(95)<${P95_MS}`)],
          // Whoever waits for ever neither fails nor has a latency.
          [`naru_answered{piece:${step}}`, [`count>=${enough(rate)}`]],
        ];
      }),
    ),
  },
});
export const options = ramp.options;

export default function (found) {
  const ids = ramp.upload(found, photograph);
  if (ids && isSampled(chosen.SAMPLE)) verify(ids[0], photograph.images[0]);
}

export const handleSummary = summary({
  script: 'breaking-point',
  settings: chosen,
  load: ramp,
  more: (result) => {
    result.steps = stepsOf(result);
    const missed = result.steps.findIndex(({ verdict }) => verdict === 'MISSED');
    const held = result.steps
      .slice(0, missed < 0 ? undefined : missed)
      .filter(({ verdict }) => verdict === 'held');
    result.held = held.at(-1)?.rate ?? null;
    // To end early is what this is for.
    if (missed >= 0) result.aborted = false;
    result.thresholds = result.thresholds.filter(({ metric }) => {
      const [, step] = /piece:(\d+)/.exec(metric) ?? [];
      return step === undefined || ['held', 'MISSED'].includes(result.steps[step].verdict);
    });
    const last = result.steps.findLast(({ verdict }) => verdict !== 'not tried');
    result.throttled = result.droppedIterations > 0 && vus < vusFor(last?.rate ?? START);
    return ['', ...describe(result, missed)];
  },
});

function stepsOf({ durationSeconds: elapsed, series, droppedIterations }) {
  const begun = rates.filter((rate, step) => (elapsed - step * STEP_DURATION) * rate >= 1).length;
  return rates.map((rate, step) => {
    const { answered = 0, errors = 0, p95Ms = null } = series[step] ?? {};
    const asked = Math.round(rate * STEP_DURATION);
    const lasted = Math.min(STEP_DURATION, elapsed - step * STEP_DURATION);
    const isLate = p95Ms === null ? lasted * 1000 >= Math.min(P95_MS, STEP_DURATION * 1000) : p95Ms >= P95_MS;
    const isRefused = errors > 0 && errors >= 0.01 * (answered + errors);
    const isStarved = droppedIterations > 0 && step === begun - 1;
    const isWhole = lasted > STEP_DURATION - 0.5;
    let verdict = 'not tried';
    if (step < begun) {
      // A step in which nobody is answered is missed, too, and by far.
      if (isLate || isRefused || isStarved || (isWhole && answered < enough(rate))) verdict = 'MISSED';
      else verdict = isWhole ? 'held' : 'cut short';
    }
    return { rate, asked, answered, p95Ms, verdict };
  });
}

function describe({ steps, held, throttled }, missed) {
  return [
    row('uploads a second', 'answered', 'p95', ''),
    ...steps
      .filter(({ verdict }) => verdict !== 'not tried')
      .map(({ rate, answered, p95Ms, verdict }) => row(String(rate), answered, milliseconds(p95Ms), verdict)),
    '',
    held === null ? 'No step held: lower START' : `Held: ${held} uploads a second`,
    ...(throttled || missed >= 0 ? [] : [`It didn't break: raise MAX_RATE beyond ${MAX_RATE}`]),
  ];
}
