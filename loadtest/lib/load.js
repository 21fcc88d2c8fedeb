// What every script does: ask Naru, judge each answer, count it. lib/result.js makes a table and a file of the counts.
import crypto from 'k6/crypto';
import exec from 'k6/execution';
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Gauge, Rate, Trend } from 'k6/metrics';
import { FORM_TYPE } from './images.js';
import { counted, LATE, PIECES, STATUSES } from './result.js';
import { BASE_URL, findReplicas, HEADERS, refuse } from './target.js';

const answered = new Counter('naru_answered'); // as they should be: by replica
const failed = new Rate('naru_failed'); // of all requests of the load: by kind, by piece of time
const errors = new Counter('naru_errors'); // by status
const latency = new Trend('naru_latency', true); // of what was answered as it should be: by kind, by piece of time
const uploads = new Counter('naru_uploads');
const images = new Counter('naru_images');
const bytes = new Counter('naru_bytes');
const connections = new Counter('naru_connections');
const stored = new Rate('naru_stored'); // of images read back: those that are the same
const lastAnswer = new Gauge('naru_last_answer'); // seconds since the load began
const broken = new Counter('naru_broken'); // answers that broke off, and were asked for once more

// Naru itself gives an upload 120 s; a load that has waited for a minute has waited enough.
const TIMEOUT = '60s';

/**
 * A load: k6's options for it, and what to ask. `scenario` is k6's own; `warmUp` and `duration` are seconds, of which it
 * has to cover both. What begins in the warm-up isn't counted. Without a `duration` (a number of requests was asked for)
 * it lasts until its last answer. `thresholds` come on top of those that every load has.
 */
export function load({ scenario, thresholds, kinds = ['upload'], warmUp = 0, duration, piece }) {
  const isOpen = scenario.executor.endsWith('arrival-rate');
  // For the series: as many pieces as there may be, unless the script has steps of its own.
  const pieceSeconds = duration === undefined ? undefined : (piece ?? Math.ceil(duration / PIECES));
  const pieces = pieceSeconds === undefined ? 0 : Math.ceil(duration / pieceSeconds);

  const since = () => (Date.now() - exec.scenario.startTime) / 1000 - warmUp;

  /** Sends one request and counts it; `judge` says whether the answer is what was asked for. */
  function ask(found, kind, method, path, { body = null, type, responseType = 'text', judge, again }) {
    const begun = since();
    const send = () => {
      const headers = type ? { ...HEADERS, 'Content-Type': type } : HEADERS;
      const params = { headers, responseType, timeout: TIMEOUT, redirects: 0 };
      const answer = http.request(method, `${BASE_URL}${path}`, body, params);
      if (answer.timings.connecting > 0) connections.add(1);
      return answer;
    };
    let answer = send();
    if (again?.(answer)) {
      broken.add(1);
      answer = send();
    }
    const isGood = judge(answer);
    if (begun < 0) return { answer, isGood, count: () => undefined };
    const tags = { kind };
    if (pieces > 0) tags.piece = String(Math.min(pieces - 1, Math.floor(begun / pieceSeconds)));
    failed.add(!isGood, tags);
    lastAnswer.add(since());
    if (isGood) {
      latency.add(answer.timings.duration, tags);
      const from = answer.headers['X-Served-By'];
      const number = found.replicas.indexOf(from);
      // What nginx answered from a copy is nobody's.
      const replica = from === 'nginx' ? from : number < 0 ? LATE : String(number);
      answered.add(1, { ...tags, replica });
    } else {
      errors.add(1, { status: STATUSES.includes(String(answer.status)) ? String(answer.status) : 'other' });
    }
    return { answer, isGood, count: (metric, ...sample) => metric.add(...sample) };
  }

  /** Uploads a form; the ids of its images, or undefined. */
  function upload(found, form) {
    let ids;
    const { isGood, count } = ask(found, 'upload', 'POST', '/images', {
      body: form.body,
      type: FORM_TYPE,
      judge: (answer) => {
        const told = answer.status === 201 ? (parsed(answer)?.images ?? []) : [];
        const isWhole =
          told.length === form.images.length && told.every(({ bytes }, i) => bytes === form.images[i].bytes);
        if (isWhole) ids = told.map(({ id }) => id);
        return check(isWhole, { 'an upload is acknowledged, with every byte': Boolean });
      },
    });
    if (!isGood) return undefined;
    count(uploads, 1);
    count(images, ids.length);
    count(bytes, form.bytes);
    return ids;
  }

  /**
   * Reads an image; `compare` looks at its bytes, else only at how many there are. With `again` it is asked for once more
   * when its answer breaks off, which no balancer can mend: it has passed on a part of it.
   */
  function read(found, id, image, { compare = false, again = false } = {}) {
    const { answer, isGood, count } = ask(found, 'read', 'GET', `/images/${id}`, {
      responseType: compare ? 'binary' : 'none',
      again: (answer) => again && isBroken(answer),
      judge: (answer) => {
        const isWhole = answer.status === 200 && Number(answer.headers['Content-Length']) === image.bytes;
        return check(isWhole && (!compare || isSame(answer, image)), { 'a read brings the image': Boolean });
      },
    });
    if (isGood) count(bytes, image.bytes);
    if (isGood && compare) stored.add(true);
    if (compare && [200, 404].includes(answer.status) && !isGood) stored.add(false);
    return { answer, isGood, count };
  }

  function list(found) {
    const judge = (answer) =>
      check(answer.status === 200 && Array.isArray(parsed(answer)?.images), { 'a list is a list': Boolean });
    return ask(found, 'list', 'GET', '/images?limit=50', { judge });
  }

  function remove(found, id) {
    const judge = ({ status }) => check(status === 204, { 'what is deleted was there': Boolean });
    return ask(found, 'delete', 'DELETE', `/images/${id}`, { judge });
  }

  const options = {
    // Longer than a request may take, so that each is counted.
    scenarios: { load: { gracefulStop: '90s', ...scenario } },
    thresholds: {
      ...counted(kinds, pieces),
      // A service that answers nothing has no latency either.
      naru_answered: ['count>0'],
      naru_stored: ['rate==1'],
      ...(isOpen ? { dropped_iterations: ['count<1'] } : {}),
      ...thresholds,
    },
    summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
    batchPerHost: 16,
    setupTimeout: '60s',
  };
  const { maxVUs, vus = maxVUs, iterations } = scenario;
  return {
    options,
    isOpen,
    kinds,
    warmUp,
    duration,
    pieces,
    pieceSeconds,
    vus,
    iterations,
    upload,
    read,
    list,
    remove,
  };
}

/** k6's scenario of an open model: `rate` a second for so many seconds, whether or not those before are answered. */
export function steady(rate, seconds, vus) {
  return {
    executor: 'constant-arrival-rate',
    rate,
    timeUnit: '1s',
    duration: `${seconds}s`,
    preAllocatedVUs: vus,
    maxVUs: vus,
  };
}

/** What every setup() begins with: refuses a target that can't be tested, else finds its replicas. */
export function setup() {
  return { replicas: findReplicas(), at: Date.now() };
}

/** Uploads `count` images of these forms before the load, for it to read; ends the run if it can't. Their ids, in order. */
export function prepare(forms, count) {
  return Array.from({ length: count }, (_, number) => {
    const headers = { ...HEADERS, 'Content-Type': FORM_TYPE };
    const answer = http.post(`${BASE_URL}/images`, forms[number % forms.length].body, {
      headers,
      timeout: TIMEOUT,
    });
    if (answer.status !== 201) {
      refuse(`an image to be read could not be uploaded: ${answer.status || answer.error}.`);
    }
    return answer.json('images.0.id');
  });
}

/** Deletes what prepare() uploaded. */
export function clear(ids) {
  http.batch(
    ids.map((id) => ['DELETE', `${BASE_URL}/images/${id}`, null, { headers: HEADERS, timeout: TIMEOUT }]),
  );
}

/**
 * Reads an image back, outside the load, and compares it with what was sent. A service in trouble is asked a few times
 * more: what counts is what is stored.
 */
export function verify(id, image) {
  let answer;
  for (let tries = 0; tries < 3; tries++) {
    if (tries > 0) sleep(1);
    answer = http.get(`${BASE_URL}/images/${id}`, { responseType: 'binary', timeout: TIMEOUT });
    if (answer.status === 200 || answer.status === 404) break;
  }
  const same = answer.status === 200 && isSame(answer, image);
  check(same, { 'what is stored is what was sent': Boolean });
  stored.add(same);
}

/** Whether this iteration is one of the sample: the first is, and of the others `part` (0 to 1), by chance. */
export function isSampled(part) {
  return part > 0 && (exec.scenario.iterationInTest === 0 || Math.random() < part);
}

function isBroken({ status, body, error }) {
  return status === 0 && (body?.byteLength > 0 || error.includes('unexpected EOF'));
}

function isSame({ body }, { bytes, sha256 }) {
  return body?.byteLength === bytes && crypto.sha256(body, 'hex') === sha256;
}

function parsed({ body }) {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
