// Question: does Naru take RATE photographs a second, each one acknowledged whole and soon, and do the
// replicas share them?
//
//   k6 run loadtest/upload.js
//   k6 run -e BASE_URL=http://localhost:8080 -e RATE=50 -e DURATION=1m loadtest/upload.js
//
// What it uploads stays in the bucket: RATE × DURATION × 0.9 MB.
import exec from 'k6/execution';
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const BASE_URL = (__ENV.BASE_URL || 'http://localhost:8080').replace(/\/+$/, '');
const RATE = Number(__ENV.RATE || 20); // uploads a second
const DURATION = __ENV.DURATION || '30s';
const P95_MS = Number(__ENV.P95_MS || 1000);
const HEADERS = __ENV.API_KEY ? { Authorization: `Bearer ${__ENV.API_KEY}` } : {};

// Opened once, and the form built once: k6 would otherwise copy the photograph several times per upload.
const photograph = open('./images/hubble-900kB.jpg', 'b');
const BOUNDARY = 'naru-loadtest-2f9c1d';
const form = multipart(photograph);

// k6 keeps a count per tag value only for values named before the test starts, so replicas get numbers:
// setup() finds them, and what answers later than that (scaled up meanwhile) is counted together.
const MAX_REPLICAS = 32;
const LATE = 'late';
const uploads = new Counter('naru_uploads');

export const options = {
  scenarios: {
    // An open model: arrivals do not slow down when the service does.
    uploads: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: DURATION,
      preAllocatedVUs: Math.max(10, RATE * 2),
      maxVUs: Math.max(20, RATE * 5),
    },
  },
  thresholds: {
    'http_req_failed{scenario:uploads}': ['rate<0.001'],
    'http_req_duration{scenario:uploads}': [`p(95)<${P95_MS}`],
    checks: ['rate>0.999'],
    dropped_iterations: ['count<1'],
    ...Object.fromEntries(slots().map((slot) => [`naru_uploads{replica:${slot}}`, ['count>=0']])),
  },
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
};

/** Refuses a target that is dead, not ready or not Naru; else the replicas behind it. */
export function setup() {
  const ready = http.get(`${BASE_URL}/health/ready`, { timeout: '5s' });
  if (ready.status === 0) refuse(`nothing answers at ${BASE_URL} (${ready.error}). Is it started?`);
  if (!ready.headers['X-Served-By']) refuse(`what answers at ${BASE_URL} is not Naru: no X-Served-By.`);
  if (ready.status !== 200) refuse(`${BASE_URL} is not ready: /health/ready answers ${ready.status}.`);

  const probes = http.batch(
    Array.from({ length: 2 * MAX_REPLICAS }, () => ['GET', `${BASE_URL}/health/live`]),
  );
  const replicas = new Set(probes.map((probe) => probe.headers['X-Served-By']).filter(Boolean));
  return { replicas: [...replicas].sort().slice(0, MAX_REPLICAS) };
}

export default function ({ replicas }) {
  const answer = http.post(`${BASE_URL}/images`, form, {
    headers: { ...HEADERS, 'Content-Type': `multipart/form-data; boundary=${BOUNDARY}` },
  });
  const created = check(answer, {
    'the answer is 201': ({ status }) => status === 201,
    'every byte arrived': ({ status, body }) =>
      status === 201 && JSON.parse(body).images[0].bytes === photograph.byteLength,
  });
  if (!created) return;
  const number = replicas.indexOf(answer.headers['X-Served-By']);
  uploads.add(1, { replica: number < 0 ? LATE : String(number) });
}

export function handleSummary({ metrics, setup_data: found, state }) {
  if (!found) return {};
  const value = (metric, name) => metrics[metric]?.values[name] ?? 0;
  const duration = (name) => `${value('http_req_duration{scenario:uploads}', name).toFixed(0)} ms`;
  const created = value('naru_uploads', 'count');
  const seconds = state.testRunDurationMs / 1000;
  const missed = Object.entries(metrics).flatMap(([metric, { thresholds = {} }]) =>
    Object.entries(thresholds)
      .filter(([, { ok }]) => !ok)
      .map(([threshold]) => `${metric} ${threshold}`),
  );
  const lines = [
    `${created} uploads of ${photograph.byteLength} bytes in ${seconds.toFixed(1)} s, asked for ${RATE} a second`,
    '',
    row('replica', 'uploads', 'share'),
    ...slots().flatMap((slot) => {
      const count = value(`naru_uploads{replica:${slot}}`, 'count');
      const name = slot === LATE ? 'not seen at the start' : found.replicas[Number(slot)];
      return count > 0 ? [row(name, count, `${((100 * count) / created).toFixed(1)} %`)] : [];
    }),
    '',
    row('median', duration('med')),
    row('95th percentile', duration('p(95)')),
    row('slowest', duration('max')),
    row('failed', `${(100 * value('http_req_failed{scenario:uploads}', 'rate')).toFixed(2)} %`),
    row('dropped', value('dropped_iterations', 'count')),
    '',
    ...(missed.length > 0 ? missed.map((threshold) => `MISSED  ${threshold}`) : ['every threshold held']),
  ];
  return { stdout: `\n${lines.map((line) => `  ${line}`.trimEnd()).join('\n')}\n\n` };
}

function row(name, ...cells) {
  return name.padEnd(24) + cells.map((cell) => String(cell).padStart(10)).join('');
}

function slots() {
  return [...Array(MAX_REPLICAS).keys()].map(String).concat(LATE);
}

function refuse(why) {
  exec.test.abort(`upload.js: ${why}`);
}

function multipart(file) {
  const head = ascii(
    `--${BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="hubble.jpg"\r\n` +
      'Content-Type: image/jpeg\r\n\r\n',
  );
  const tail = ascii(`\r\n--${BOUNDARY}--\r\n`);
  const body = new Uint8Array(head.length + file.byteLength + tail.length);
  body.set(head);
  body.set(new Uint8Array(file), head.length);
  body.set(tail, head.length + file.byteLength);
  return body.buffer;
}

function ascii(text) {
  return new Uint8Array([...text].map((character) => character.charCodeAt(0)));
}
