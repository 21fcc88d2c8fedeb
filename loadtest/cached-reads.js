// Question: How much of the reading does nginx's cache keep from the replicas, and how soon do readers have their images?
//
//   LB_CACHE=on npm start -- --replicas 3
//   k6 run loadtest/cached-reads.js
//   k6 run -e RATE=100 -e IMAGES=50 -e HIT_RATIO=0.95 loadtest/cached-reads.js
//
// An open model: RATE reads a second of IMAGES images of 20 kB to 900 kB, which are uploaded before and deleted afterwards.
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Rate } from 'k6/metrics';
import { form, openImages } from './lib/images.js';
import { clear, isSampled, load, prepare, setup as begin, steady } from './lib/load.js';
import { row, summary } from './lib/result.js';
import { seconds, settings, share, whole } from './lib/settings.js';
import { BASE_URL, refuse, TARGET } from './lib/target.js';

const chosen = settings({
  RATE: whole(50, 1, 10_000),
  WARM_UP: seconds(0, 0, 600),
  DURATION: seconds(30, 1, 3600),
  IMAGES: whole(20, 1, 1000),
  HIT_RATIO: share(0.9),
  P95_MS: whole(500, 1, 60_000),
  VUS: whole(0, 0, 10_000),
  SAMPLE: share(0.02),
});
const { RATE, WARM_UP, DURATION, IMAGES, HIT_RATIO, P95_MS } = chosen;
const vus = chosen.VUS || Math.max(20, Math.ceil((2 * RATE * P95_MS) / 1000));
// What nginx says of a read in X-Cache; see deploy/nginx/reads/cache.conf. The first three come from a copy alone.
const COPIES = ['HIT', 'STALE', 'UPDATING'];
const SAID = [...COPIES, 'REVALIDATED', 'EXPIRED', 'MISS', 'BYPASS', 'none'];
const hits = new Rate('naru_hits');
const reads = new Counter('naru_cache');

const forms = openImages('900kB', '300kB', '100kB', '20kB').map((image) => form([image]));
const cached = load({
  scenario: steady(RATE, WARM_UP + DURATION, vus),
  kinds: ['read'],
  warmUp: WARM_UP,
  duration: DURATION,
  thresholds: {
    naru_failed: ['rate<0.001'],
    naru_latency: [`p(95)<${P95_MS}`],
    naru_hits: [`rate>=${HIT_RATIO}`],
    ...Object.fromEntries(SAID.map((said) => [`naru_cache{said:${said}}`, ['count>=0']])),
  },
});
export const options = cached.options;

export function setup() {
  const found = begin();
  const ids = prepare(forms, IMAGES);
  const read = http.get(`${BASE_URL}/images/${ids[0]}`, { responseType: 'none' });
  if (!read.headers['X-Cache']) {
    clear(ids);
    refuse(`${TARGET} reads no image from a cache: no X-Cache. Start Naru with LB_CACHE=on and --replicas.`);
  }
  return { ...found, ids, at: Date.now() };
}

export default function (found) {
  const number = exec.scenario.iterationInTest % found.ids.length;
  const image = forms[number % forms.length].images[0];
  const { answer, count } = cached.read(found, found.ids[number], image, {
    compare: isSampled(chosen.SAMPLE),
  });
  if (answer.status !== 200) return;
  const said = answer.headers['X-Cache'];
  count(hits, COPIES.includes(said));
  count(reads, 1, { said: SAID.includes(said) ? said : 'none' });
}

export const teardown = ({ ids }) => clear(ids);

export const handleSummary = summary({
  script: 'cached-reads',
  settings: chosen,
  load: cached,
  more: (result, value) => {
    const counts = SAID.map((said) => [said, value(`naru_cache{said:${said}}`, 'count')]).filter(
      ([, count]) => count > 0,
    );
    result.cache = { ratio: value('naru_hits', 'rate'), byStatus: Object.fromEntries(counts) };
    return [
      '',
      row('X-Cache', 'reads'),
      ...counts.map(([said, count]) => row(said, count)),
      `${(100 * result.cache.ratio).toFixed(1)} % of the reads asked no replica`,
    ];
  },
});
