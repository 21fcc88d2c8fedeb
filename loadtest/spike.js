// Question: When clients are suddenly ten times as many, is anybody turned away, and is Naru itself again soon afterwards?
//
//   k6 run loadtest/spike.js
//   k6 run -e RATE=10 -e SPIKE_RATE=200 -e SPIKE_DURATION=15s loadtest/spike.js
//
// An open model: RATE photographs a second, for SPIKE_DURATION SPIKE_RATE, then RATE again until AFTER is over. In the last
// fifth of AFTER the 95th percentile has to be below P95_MS. What it uploads stays in the bucket.
import { form, openImages } from './lib/images.js';
import { isSampled, load, verify } from './lib/load.js';
import { milliseconds, row, summary } from './lib/result.js';
import { seconds, settings, share, whole } from './lib/settings.js';

export { setup } from './lib/load.js';

const chosen = settings({
  RATE: whole(3, 1, 10_000),
  SPIKE_RATE: whole(30, 1, 10_000),
  BEFORE: seconds(10, 1, 600),
  SPIKE_DURATION: seconds(10, 1, 600),
  AFTER: seconds(30, 5, 3600),
  P95_MS: whole(1000, 1, 60_000),
  VUS: whole(0, 0, 10_000),
  SAMPLE: share(0.02),
});
const { RATE, SPIKE_RATE, BEFORE, SPIKE_DURATION, AFTER, P95_MS } = chosen;
// All that a spike sends may be waiting at once.
const vus = chosen.VUS || Math.min(400, Math.max(20, Math.ceil(SPIKE_RATE * SPIKE_DURATION)));
const duration = BEFORE + SPIKE_DURATION + AFTER;
const piece = Math.max(1, Math.ceil(duration / 60), Math.floor(AFTER / 5));
const last = Math.ceil(duration / piece) - 1;

const photograph = form(openImages('900kB'));
const spike = load({
  scenario: {
    executor: 'ramping-arrival-rate',
    startRate: RATE,
    timeUnit: '1s',
    preAllocatedVUs: vus,
    maxVUs: vus,
    stages: [
      { target: RATE, duration: `${BEFORE}s` },
      { target: SPIKE_RATE, duration: '0s' },
      { target: SPIKE_RATE, duration: `${SPIKE_DURATION}s` },
      { target: RATE, duration: '0s' },
      { target: RATE, duration: `${AFTER}s` },
    ],
  },
  duration,
  piece,
  thresholds: { naru_failed: ['rate<0.01'], [`naru_latency{piece:${last}}`]: [`p(95)<${P95_MS}`] },
});
export const options = spike.options;

export default function (found) {
  const ids = spike.upload(found, photograph);
  if (ids && isSampled(chosen.SAMPLE)) verify(ids[0], photograph.images[0]);
}

export const handleSummary = summary({
  script: 'spike',
  settings: chosen,
  load: spike,
  more: ({ series }) => [
    '',
    row('from second', 'answered', 'errors', 'p95', ''),
    ...series.map(({ second, seconds, answered, errors, p95Ms }) =>
      row(
        String(second),
        answered,
        errors,
        milliseconds(p95Ms),
        second < BEFORE + SPIKE_DURATION && second + seconds > BEFORE ? 'spike' : '',
      ),
    ),
  ],
});
