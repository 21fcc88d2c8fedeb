// Question: How many photographs of 900 kB a second do so many replicas take, when clients send as fast as they can?
//
//   k6 run -e REPLICAS=1 loadtest/one-vs-many.js
//   k6 run -e REPLICAS=3 loadtest/one-vs-many.js
//
// A closed model: each client sends its next upload when it has the answer to the last, so that the service is full and
// its capacity shows, not its latency. Each replica gets as many clients, however many replicas there are. What begins in
// the warm-up isn't counted. What it uploads stays in the bucket.
import { form, openImages } from './lib/images.js';
import { isSampled, load, verify } from './lib/load.js';
import { summary } from './lib/result.js';
import { seconds, settings, share, whole } from './lib/settings.js';

export { setup } from './lib/load.js';

const chosen = settings({
  REPLICAS: whole(1, 1, 32),
  VUS_PER_REPLICA: whole(8, 1, 100),
  WARM_UP: seconds(5, 0, 600),
  DURATION: seconds(30, 1, 3600),
  SAMPLE: share(0.01),
});
const photograph = form(openImages('900kB'));
const capacity = load({
  scenario: {
    executor: 'constant-vus',
    vus: chosen.REPLICAS * chosen.VUS_PER_REPLICA,
    duration: `${chosen.WARM_UP + chosen.DURATION}s`,
  },
  warmUp: chosen.WARM_UP,
  duration: chosen.DURATION,
  thresholds: { naru_failed: ['rate<0.001'] },
});
export const options = capacity.options;

export default function (found) {
  const ids = capacity.upload(found, photograph);
  if (ids && isSampled(chosen.SAMPLE)) verify(ids[0], photograph.images[0]);
}

export const handleSummary = summary({
  script: 'one-vs-many',
  settings: chosen,
  load: capacity,
  more: ({ byReplica }) => {
    const found = Object.keys(byReplica).filter((id) => id !== '(late)').length;
    if (found === chosen.REPLICAS) return [];
    return [
      '',
      `NOTE  clients were for ${chosen.REPLICAS} replicas, and ${found} answered: set -e REPLICAS=${found}`,
    ];
  },
});
