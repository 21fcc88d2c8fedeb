// Question: Does what serves at BASE_URL do everything that Naru promises, once?
//
//   k6 run loadtest/smoke.js
//   k6 run -e BASE_URL=https://images.example.com -e API_KEY=… loadtest/smoke.js
//
// Leaves nothing behind.
import http from 'k6/http';
import { check } from 'k6';
import { form, openImages } from './lib/images.js';
import { load } from './lib/load.js';
import { summary } from './lib/result.js';
import { BASE_URL } from './lib/target.js';

export { setup } from './lib/load.js';

const images = openImages('900kB', '20kB');
const both = form(images);
const smoke = load({
  scenario: { executor: 'per-vu-iterations', vus: 1, iterations: 1, maxDuration: '2m' },
  kinds: ['upload', 'read', 'list', 'delete'],
  thresholds: { naru_failed: ['rate==0'], checks: ['rate==1'] },
});
export const options = smoke.options;

export default function (found) {
  const ids = smoke.upload(found, both);
  if (!ids) return;
  ids.forEach((id, number) => {
    const { bytes } = both.images[number];
    smoke.read(found, id, both.images[number], { compare: true });
    const url = `${BASE_URL}/images/${id}`;
    check(http.head(url), {
      'HEAD tells how large it is': ({ status, headers }) =>
        status === 200 && Number(headers['Content-Length']) === bytes,
    });
    check(http.get(url, { headers: { Range: 'bytes=0-15' } }), {
      'a range is 206, and as long as asked for': ({ status, headers }) =>
        status === 206 && headers['Content-Range'] === `bytes 0-15/${bytes}`,
    });
    check(http.get(`${url}/info`), {
      'its info is that of a JPEG of this size': (info) =>
        info.status === 200 && info.json('bytes') === bytes && info.json('contentType') === 'image/jpeg',
    });
  });
  smoke.list(found);
  for (const id of ids) smoke.remove(found, id);
}

export const handleSummary = summary({ script: 'smoke', settings: {}, load: smoke });
