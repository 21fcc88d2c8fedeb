// Question: Does a client lose an image, or so much as notice, when a replica dies under load?
//
//   k6 run loadtest/fault.js          and meanwhile, somewhere else: docker kill naru-api-2
//   k6 run -e RATE=50 -e DURATION=2m loadtest/fault.js
//
// An open model: RATE times a second a photograph is uploaded and read back, and one from before is read, both byte for
// byte. Who kills what, and when, is up to you. A read that breaks off in mid-answer is asked for once more, as browsers do: no
// balancer can mend an answer of which it has passed on a part. What it uploads stays in the bucket.
import { form, openImages } from './lib/images.js';
import { load, steady } from './lib/load.js';
import { summary } from './lib/result.js';
import { seconds, settings, whole } from './lib/settings.js';

export { setup } from './lib/load.js';

const chosen = settings({
  RATE: whole(5, 1, 10_000),
  WARM_UP: seconds(0, 0, 600),
  DURATION: seconds(30, 1, 3600),
  VUS: whole(0, 0, 10_000),
});
const { RATE, WARM_UP, DURATION } = chosen;
// A replica that hangs keeps its clients waiting for a while; nobody is to be left out meanwhile.
const vus = chosen.VUS || Math.max(30, RATE * 20);

const photograph = form(openImages('900kB'));
const [image] = photograph.images;
const fault = load({
  scenario: steady(RATE, WARM_UP + DURATION, vus),
  kinds: ['upload', 'read'],
  warmUp: WARM_UP,
  duration: DURATION,
  thresholds: { naru_failed: ['rate==0'] },
});
export const options = fault.options;

let earlier;

export default function (found) {
  const [id] = fault.upload(found, photograph) ?? [];
  for (const each of [id, earlier]) {
    if (each) fault.read(found, each, image, { compare: true, again: true });
  }
  earlier = id ?? earlier;
}

export const handleSummary = summary({
  script: 'fault',
  settings: chosen,
  load: fault,
  more: (result, value) => {
    result.brokenReads = value('naru_broken', 'count');
    return [`${result.brokenReads} reads broke off in mid-answer and were asked for once more`];
  },
});
