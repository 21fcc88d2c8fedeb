// Question: Are thousands of uploads, one to five images of 20 kB to 900 kB each, all stored, whole, and how soon?
//
//   k6 run loadtest/seed.js
//   k6 run -e REQUESTS=3000 -e VUS=20 loadtest/seed.js
//
// A closed model with an end: VUS clients share REQUESTS uploads. Fills a new bucket, too: by default with 6,875 images
// (1.9 GB), which stay.
import { form, openImages } from './lib/images.js';
import { isSampled, load, verify } from './lib/load.js';
import { summary } from './lib/result.js';
import { settings, share, whole } from './lib/settings.js';
import exec from 'k6/execution';

export { setup } from './lib/load.js';

const chosen = settings({
  REQUESTS: whole(2500, 1, 1_000_000),
  VUS: whole(10, 1, 1000),
  SAMPLE: share(0.02),
});
const [large, middle, small, tiny] = openImages('900kB', '300kB', '100kB', '20kB');
const forms = [[large], [middle, small, tiny], [large, middle], [tiny, small, tiny, middle, small]].map(form);
const seed = load({
  scenario: {
    executor: 'shared-iterations',
    // k6 refuses more VUs than iterations.
    vus: Math.min(chosen.VUS, chosen.REQUESTS),
    iterations: chosen.REQUESTS,
    maxDuration: '6h',
  },
  thresholds: { naru_failed: ['rate==0'] },
});
export const options = seed.options;

export default function (found) {
  const number = exec.scenario.iterationInTest;
  const sent = forms[number % forms.length];
  const ids = seed.upload(found, sent);
  if (!ids || !isSampled(chosen.SAMPLE)) return;
  ids.forEach((id, index) => verify(id, sent.images[index]));
}

export const handleSummary = summary({ script: 'seed', settings: chosen, load: seed });
