// Question: Is Naru after long, steady work as fast as at its beginning?
//
//   k6 run loadtest/soak.js
//   k6 run -e RATE=20 -e DURATION=8h loadtest/soak.js
//
// An open model: RATE photographs a second are uploaded, and deleted at once, so that the bucket doesn't grow.
import { form, openImages } from './lib/images.js';
import { isSampled, load, steady, verify } from './lib/load.js';
import { milliseconds, summary } from './lib/result.js';
import { seconds, settings, share, whole } from './lib/settings.js';

export { setup } from './lib/load.js';

const chosen = settings({
  RATE: whole(5, 1, 10_000),
  WARM_UP: seconds(10, 0, 600),
  DURATION: seconds(3600, 2, 7 * 24 * 3600),
  P95_MS: whole(1000, 1, 60_000),
  VUS: whole(0, 0, 10_000),
  SAMPLE: share(0.02),
});
const { RATE, WARM_UP, DURATION, P95_MS } = chosen;
const vus = chosen.VUS || Math.max(20, Math.ceil((4 * RATE * P95_MS) / 1000));
const last = Math.ceil(DURATION / Math.ceil(DURATION / 60)) - 1;

const photograph = form(openImages('900kB'));
const soak = load({
  scenario: steady(RATE, WARM_UP + DURATION, vus),
  kinds: ['upload', 'delete'],
  warmUp: WARM_UP,
  duration: DURATION,
  thresholds: {
    naru_failed: ['rate<0.001'],
    'naru_latency{kind:upload}': [`p(95)<${P95_MS}`],
    [`naru_latency{piece:${last}}`]: [`p(95)<${P95_MS}`],
  },
});
export const options = soak.options;

export default function (found) {
  const [id] = soak.upload(found, photograph) ?? [];
  if (!id) return;
  if (isSampled(chosen.SAMPLE)) verify(id, photograph.images[0]);
  soak.remove(found, id);
}

export const handleSummary = summary({
  script: 'soak',
  settings: chosen,
  load: soak,
  more: ({ series }) => {
    const [first, ...rest] = series.filter(({ p95Ms }) => p95Ms !== null);
    if (rest.length === 0) return [];
    return [
      `p95 was ${milliseconds(first.p95Ms)} at the beginning and ${milliseconds(rest.at(-1).p95Ms)} at the end`,
    ];
  },
});
