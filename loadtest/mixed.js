// Question: Does Naru hold when clients upload, read, list and delete at the same time, whichever replica has the request?
//
//   k6 run loadtest/mixed.js
//   k6 run -e RATE=100 -e DURATION=5m loadtest/mixed.js
//
// An open model: RATE times a second a client comes; of twenty 13 read an image, 4 upload one, 2 list and one uploads an
// image and deletes it at once. What is read was uploaded before, or just now by the same client. The uploads stay in the bucket.
import exec from 'k6/execution';
import { form, openImages } from './lib/images.js';
import { clear, isSampled, load, prepare, setup as begin, steady } from './lib/load.js';
import { summary } from './lib/result.js';
import { seconds, settings, share, whole } from './lib/settings.js';

const chosen = settings({
  RATE: whole(20, 1, 10_000),
  WARM_UP: seconds(5, 0, 600),
  DURATION: seconds(30, 1, 24 * 3600),
  P95_MS: whole(1000, 1, 60_000),
  VUS: whole(0, 0, 10_000),
  SAMPLE: share(0.05),
});
const { RATE, WARM_UP, DURATION, P95_MS } = chosen;
const vus = chosen.VUS || Math.max(20, Math.ceil((2 * RATE * P95_MS) / 1000));

const forms = openImages('900kB', '300kB', '100kB', '20kB').map((image) => form([image]));
// Spread out, so that each second has some of each.
const TURNS = [...'rurrlrurrrdrurrrlrur'];
const KINDS = { u: 'upload', r: 'read', l: 'list', d: 'delete' };
const mixed = load({
  scenario: steady(RATE, WARM_UP + DURATION, vus),
  kinds: Object.values(KINDS),
  warmUp: WARM_UP,
  duration: DURATION,
  thresholds: {
    naru_failed: ['rate<0.001'],
    ...Object.fromEntries(
      Object.values(KINDS).map((kind) => [`naru_latency{kind:${kind}}`, [`p(95)<${P95_MS}`]]),
    ),
  },
});
export const options = mixed.options;

export function setup() {
  const found = begin();
  const ids = prepare(forms, 2 * forms.length);
  return { ...found, ids, at: Date.now() };
}

// What this client uploaded last.
let mine;

export default function (found) {
  const number = exec.scenario.iterationInTest;
  const kind = KINDS[TURNS[number % TURNS.length]];
  const sent = forms[number % forms.length];
  if (kind === 'list') mixed.list(found);
  else if (kind === 'read') {
    const [id, image] = (number % 2 === 0 && mine) || [found.ids[number % found.ids.length], sent.images[0]];
    mixed.read(found, id, image, { compare: isSampled(chosen.SAMPLE) });
  } else {
    const [id] = mixed.upload(found, sent) ?? [];
    if (id && kind === 'delete') mixed.remove(found, id);
    else if (id) mine = [id, sent.images[0]];
  }
}

export const teardown = ({ ids }) => clear(ids);

export const handleSummary = summary({ script: 'mixed', settings: chosen, load: mixed });
