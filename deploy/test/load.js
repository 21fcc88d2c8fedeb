// The load of faults.test.js: clients who come at a steady rate, whatever becomes of those before them (an open model),
// and send nothing twice. It keeps what became of each upload, and reads back what was acknowledged.
import { createHash, randomBytes, randomInt } from 'node:crypto';
import http from 'node:http';
import { performance } from 'node:perf_hooks';
import { picture, sleep, times } from './harness.js';

const MiB = 1024 * 1024;
/** More of what is smaller, as people send it. */
const SIZES = [20_000, 50_000, 120_000, 20_000, 300_000, 50_000, 600_000, 900_000];
/** Every so many uploads, from the tenth on, one is as large as Naru takes by default. */
const LARGE_EVERY = 100;
const LARGE_BYTES = 20 * MiB;
/** Longer than whatever a request may wait for; it is answered before, or has failed. */
const PATIENCE_MS = 150_000;
/** How long the load runs before the fault begins. */
const LEAD_MS = 1_000;
// Any bytes may follow an image's own end; where each image's begin is by chance, so no two are alike.
const NOISE = randomBytes(48 * MiB);
const PNG = picture(100);
const BOUNDARY = 'naru-0123456789abcdef0123456789abcdef';
const HEAD = Buffer.from(
  `--${BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="photograph.png"\r\n` +
    'Content-Type: image/png\r\n\r\n',
);
const TAIL = Buffer.from(`\r\n--${BOUNDARY}--\r\n`);
// An idle connection is left before nginx may close it: 10 s after a reload (http/bounds.conf).
const agent = new http.Agent({ keepAlive: true, timeout: 5_000 });

/**
 * Sends at least `uploads` images at `rate` a second, and goes on until `fault`, which begins a second later, is done.
 * Resolves when each one is answered, with what became of it; `signal` ends it sooner. `hangUps` is the share of clients that leave at any byte, the
 * last one included.
 */
export async function load(url, { uploads, rate, hangUps = 0, signal }, fault) {
  const started = performance.now();
  const sent = [];
  let isOver = false;
  const faulted = sleep(LEAD_MS)
    .then(fault)
    .finally(() => (isOver = true));
  // It is awaited below, when it may have failed long ago.
  faulted.catch(() => undefined);
  while ((sent.length < uploads || !isOver) && !signal.aborted) {
    const due = started + (sent.length * 1_000) / rate;
    // Waits at least for what else there is to do.
    await sleep(Math.max(0, due - performance.now()));
    const bytes = sent.length % LARGE_EVERY === 9 ? LARGE_BYTES : SIZES[sent.length % SIZES.length];
    sent.push(send(url, { bytes, due, at: due - started, leaves: Math.random() < hangUps }));
  }
  await faulted;
  return Promise.all(sent);
}

/** What went wrong with acknowledged images, none if they are as they were sent; each is then deleted. */
export async function readBack(url, results) {
  const stored = results.filter(({ key }) => key !== undefined);
  const wrong = await times(stored.length, async (index) => {
    const { id, sha256 } = stored[index];
    const { status, hash } = await get(`${url}/images/${id}`);
    if (status !== 200) return { ...stored[index], wrong: `reading it answers ${status}` };
    if (hash !== sha256) return { ...stored[index], wrong: 'it has other bytes' };
    const removed = await get(`${url}/images/${id}`, 'DELETE');
    return removed.status === 204
      ? undefined
      : { ...stored[index], wrong: `deleting it answers ${removed.status}` };
  });
  return wrong.filter((result) => result !== undefined);
}

/** The figures of a row. Times are from when an upload was due until it was answered. */
export function summarize(results) {
  const durations = results.filter(({ outcome }) => outcome !== 'hung up').map(({ ms }) => ms);
  durations.sort((a, b) => a - b);
  const count = (what) => results.filter(({ outcome }) => outcome === what).length;
  return {
    uploads: results.length,
    stored: count('stored'),
    failed: count('failed'),
    refused: count('503'),
    hungUp: count('hung up'),
    p95: Math.round(durations[Math.ceil(durations.length * 0.95) - 1]),
    max: Math.round(durations.at(-1)),
  };
}

/** One line for each, so that it is found in the logs: when, which, what, and who answered. */
export function describe(results) {
  const lines = results
    .slice(0, 20)
    .map(({ at, requestId, bytes, status, code, servedBy, ms, error, wrong, id }) => {
      const said = [status, code, error, wrong, id].filter((part) => part !== undefined).join(' ');
      return `  ${(at / 1000).toFixed(2)} s  ${requestId}  ${bytes} bytes: ${said}, by ${servedBy ?? 'nobody'}, after ${Math.round(ms)} ms`;
    });
  if (results.length > lines.length) lines.push(`  and ${results.length - lines.length} more`);
  return lines.join('\n');
}

async function send(url, { bytes, due, at, leaves }) {
  const requestId = `fault-${randomBytes(8).toString('hex')}`;
  const offset = randomInt(NOISE.length - bytes);
  const noise = NOISE.subarray(offset, offset + bytes - PNG.length - 16);
  const unique = randomBytes(16);
  const parts = [HEAD, PNG, noise, unique, TAIL];
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const hash = createHash('sha256').update(PNG).update(noise).update(unique).digest('hex');
  const result = { requestId, at, bytes, sha256: hash };
  const request = http.request(`${url}/images`, {
    method: 'POST',
    agent,
    headers: {
      'Content-Type': `multipart/form-data; boundary=${BOUNDARY}`,
      'Content-Length': length,
      'X-Request-Id': requestId,
    },
  });
  const done = (outcome) => ({ ...result, ...outcome, ms: performance.now() - due });
  try {
    if (leaves) {
      await leave(request, parts, length);
      return done({ outcome: 'hung up' });
    }
    return done(await answerTo(request, parts));
  } catch (error) {
    return done({ outcome: 'failed', error: error.code ?? error.message });
  }
}

function answerTo(request, parts) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => request.destroy(new Error('no answer')), PATIENCE_MS);
    request.on('error', reject);
    request.on('close', () => clearTimeout(timer));
    request.on('response', (response) => {
      response.toArray().then((chunks) => resolve(judge(response, Buffer.concat(chunks))), reject);
    });
    for (const part of parts) request.write(part);
    request.end();
  });
}

function judge({ statusCode: status, headers }, body) {
  const said = { status, servedBy: headers['x-served-by'] };
  let answer;
  try {
    answer = JSON.parse(body);
  } catch {
    return { ...said, outcome: 'failed', error: `an answer that is no JSON: ${body.subarray(0, 100)}` };
  }
  if (status === 201)
    return { ...said, outcome: 'stored', id: answer.images[0].id, key: `images/${answer.images[0].id}` };
  const { code } = answer;
  const isDocumented =
    status === 503 &&
    ['STORE_UNAVAILABLE', 'OVERLOADED'].includes(code) &&
    headers['retry-after'] !== undefined;
  return { ...said, code, outcome: isDocumented ? '503' : 'failed' };
}

/** Hangs up at any byte; one time in five at the very end, before the answer. */
async function leave(request, parts, length) {
  const body = Buffer.concat(parts);
  const end = Math.min(length, randomInt(Math.ceil(length * 1.25)));
  await new Promise((resolve) => {
    // An answer that came first changes nothing: nobody is there to take it.
    request.on('error', resolve).on('response', (response) => response.on('error', () => undefined).resume());
    if (end === 0) request.flushHeaders();
    request.write(body.subarray(0, Math.max(end, 1)), resolve);
  });
  request.destroy();
}

function get(url, method = 'GET') {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, agent }).on('error', reject).end();
    request.on('response', (response) => {
      const hash = createHash('sha256');
      response.on('data', (chunk) => hash.update(chunk)).on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, hash: hash.digest('hex') }));
    });
  });
}
