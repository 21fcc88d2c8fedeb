// Runs each script with the real k6, briefly, against real replicas on the embedded store, and against what it must not
// take for Naru in good health. Needs k6 2.x, and for two tests this machine's nginx. First `npm test -- --version` builds
// the programs:
//
//   node --test loadtest/test/
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  eventually,
  freePort,
  list,
  ObjectStore,
  Replica,
  ROOT,
} from '../../deploy/test/harness.js';

const PHOTOGRAPH_BYTES = 898_692;
const SCRIPTS = 'smoke one-vs-many seed breaking-point spike soak cached-reads mixed fault'.split(' ');
// So late is nobody, however busy the machine that tests is.
const NEVER = { P95_MS: 60_000 };

let dir, store, ant, bee;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'naru-k6-'));
  store = await ObjectStore.start();
  [ant, bee] = await Promise.all(
    ['ant', 'bee'].map((id) => Replica.start(id, store.url, { LOG_LEVEL: 'warn' })),
  );
});

after(async () => {
  await Promise.all([ant, bee].map((replica) => replica?.stop('SIGKILL')));
  await store?.stop();
  await rm(dir, { recursive: true });
});

let runs = 0;

/** Runs a script as a user does; its exit `code`, what it wrote (`output`), and its `result`, if it wrote one. */
async function k6(script, target, settings = {}) {
  const file = join(dir, `${runs++}.json`);
  const variables = { BASE_URL: target.url ?? target, RESULT: file, ...settings };
  const words = Object.entries(variables).flatMap(([name, value]) => ['-e', `${name}=${value}`]);
  const flags = ['--quiet', '--no-usage-report', '--address', ''];
  const { code, output } = await new Promise((resolve) => {
    const { PATH, HOME } = process.env;
    const options = { cwd: ROOT, env: { PATH, HOME } };
    execFile('k6', ['run', ...flags, ...words, `loadtest/${script}.js`], options, (error, stdout, stderr) =>
      resolve({ code: error ? error.code : 0, output: stdout + stderr }),
    );
  });
  const text = await readFile(file, 'utf8').catch(() => undefined);
  return { code, output, result: text && JSON.parse(text) };
}

/** Runs a script that has to end well; its result. */
async function passes(script, target, settings) {
  const { code, output, result } = await k6(script, target, settings);
  assert.equal(code, 0, output);
  assert.match(output, /every threshold held/);
  return result;
}

/**
 * A line to Naru on which something may go wrong. `harm`, if there is one, gets each request and the bytes of its answer,
 * and resolves with the bytes that are passed on; what it throws breaks the answer off in its middle.
 */
async function lineTo(t, { url }, harm = (_, bytes) => bytes) {
  const asked = [];
  const server = http.createServer(async (request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const answered = http.request(`${url}${request.url}`, {
      method: request.method,
      headers: request.headers,
    });
    request.pipe(answered);
    const [answer] = await once(answered, 'response');
    const bytes = Buffer.concat(await answer.toArray());
    response.writeHead(answer.statusCode, answer.headers);
    try {
      response.end(await harm(request, bytes));
    } catch {
      response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, asked };
}

/** nginx before both replicas. */
async function balancer(t, settings = {}) {
  const balancer = await Balancer.start({ LB_REPLICAS: list(ant, bee), LB_FAIL_TIMEOUT: '1s', ...settings });
  t.after(() => balancer.stop());
  return balancer;
}

/** Ids of all images in the bucket. */
async function stored() {
  const ids = [];
  let cursor;
  do {
    const page = await ask(
      `${ant.url}/images?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`,
    );
    const { images, nextCursor } = JSON.parse(page.bytes);
    ids.push(...images.map(({ id }) => id));
    cursor = nextCursor;
  } while (cursor);
  return ids;
}

function isUpload({ method }) {
  return method === 'POST';
}

function isRead({ method, url }) {
  return method === 'GET' && /^\/images\/\w+$/.test(url);
}

describe('the scripts', () => {
  it('are those of the READMEs, and each opens with its question', async () => {
    const files = (await readdir(join(ROOT, 'loadtest'))).filter((name) => name.endsWith('.js'));
    assert.deepEqual(files.sort(), SCRIPTS.map((script) => `${script}.js`).sort());
    for (const script of SCRIPTS) {
      assert.match(
        await readFile(join(ROOT, `loadtest/${script}.js`), 'utf8'),
        /^\/\/ Question: [^?]+\?\n\/\/\n/,
      );
      for (const readme of ['README.md', 'README.ko.md']) {
        assert.ok(
          (await readFile(join(ROOT, readme), 'utf8')).includes(`\`${script}.js\``),
          `${readme}: ${script}`,
        );
      }
    }
  });

  it('name every wrong setting, and send nothing', async (t) => {
    const line = await lineTo(t, ant);
    const wrong = {
      'one-vs-many': { REPLICAS: 0, DURATION: '30', SAMPLE: 2 },
      'breaking-point': { START: 10, STEP: 1, MAX_RATE: 1000 },
      spike: { SPIKE_RATE: '1e3' },
      smoke: { BASE_URL: 'localhost' },
    };
    for (const [script, settings] of Object.entries(wrong)) {
      const { code, output } = await k6(script, line, settings);
      assert.equal(code, 107, output);
      for (const name of Object.keys(settings)) assert.match(output, new RegExp(name));
    }
    assert.deepEqual(line.asked, []);
  });
});

describe('a target that can not be tested', { concurrency: true }, () => {
  const refused = async (target, why, settings) => {
    const { code, output, result } = await k6('smoke', target, settings);
    assert.equal(code, 108, output);
    assert.match(output, why);
    assert.equal(result, undefined);
  };

  it('is refused when nothing is there', async () => {
    await refused(
      `http://127.0.0.1:${await freePort()}`,
      /nothing answers at http:\/\/127\.0\.0\.1:\d+ \(.*refused/,
    );
  });

  it('is refused soon when it takes connections and never answers', async (t) => {
    let since;
    const server = createServer((socket) => {
      since ??= Date.now();
      socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    await refused(`http://127.0.0.1:${server.address().port}`, /nothing answers at .*timeout/);
    // 5 s, and what a busy machine takes to end k6.
    assert.ok(Date.now() - since < 10_000, `it took ${Date.now() - since} ms`);
  });

  it('is refused when it is not Naru', async (t) => {
    const server = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    await refused(`http://127.0.0.1:${server.address().port}`, /is not Naru: no X-Served-By/);
  });

  it('is refused when it wants a key, and tested with one', async (t) => {
    const key = 'k'.repeat(64);
    const sha256 = new Uint8Array(await crypto.subtle.digest('SHA-256', Buffer.from(key)));
    const env = { AUTH: 'api-key', API_KEYS: `k6:${Buffer.from(sha256).toString('hex')}` };
    const closed = await Replica.start('closed', store.url, env);
    t.after(() => closed.stop('SIGKILL'));
    await refused(closed, /wants an API key: -e API_KEY=/);
    await refused(closed, /that of API_KEY is unknown/, { API_KEY: 'another' });
    const result = await passes('smoke', closed, { API_KEY: key });
    assert.ok(!JSON.stringify(result).includes(key));
  });

  it('is refused when it lets nobody in from here', async (t) => {
    await refused(
      await balancer(t, { LB_DENY: '127.0.0.1' }),
      /refuses requests from this address: it answers 403/,
    );
  });

  it('is refused when it is not ready', async (t) => {
    const away = await Replica.start('away', `http://127.0.0.1:${await freePort()}`);
    t.after(() => away.stop('SIGKILL'));
    await refused(away, /is not ready: \/health\/ready answers 503/);
  });
});

describe('smoke', () => {
  it('passes, tells what it saw, and leaves nothing behind', async () => {
    const before = await stored();
    const result = await passes('smoke', ant);
    assert.deepEqual(await stored(), before);
    assert.equal(result.version, 1);
    assert.equal(result.script, 'smoke');
    assert.match(result.question, /^Does what serves .*\?$/);
    assert.equal(result.target, ant.url);
    assert.deepEqual(
      Object.fromEntries(
        Object.entries(result.byKind).map(([kind, { requests, errors }]) => [kind, [requests, errors]]),
      ),
      { upload: [1, 0], read: [2, 0], list: [1, 0], delete: [2, 0] },
    );
    assert.deepEqual(result.byReplica, { ant: 6 });
    assert.deepEqual(result.stored, { verified: 2, altered: 0 });
    assert.deepEqual([result.requests, result.uploads, result.images, result.errors], [6, 1, 2, 0]);
    assert.ok(result.latencyMs.p50 > 0 && result.latencyMs.p50 <= result.latencyMs.max);
    assert.equal(result.connections, 1);
    assert.ok(result.thresholds.length > 0 && result.thresholds.every(({ ok }) => ok));
  });

  it('finds the replicas from outside, too, where nginx shows no health', async (t) => {
    const result = await passes('smoke', await balancer(t, { LB_INSIDE: '10.1.2.3' }));
    assert.deepEqual(Object.keys(result.byReplica), ['ant', 'bee']);
  });

  it('fails when a byte of what is read back is another', async (t) => {
    const line = await lineTo(t, ant, (request, bytes) => {
      if (isRead(request) && bytes.length === PHOTOGRAPH_BYTES) bytes[500_000] ^= 1;
      return bytes;
    });
    const { code, output, result } = await k6('smoke', line);
    assert.equal(code, 99, output);
    assert.match(output, /MISSED {2}naru_stored rate==1/);
    assert.deepEqual(result.stored, { verified: 2, altered: 1 });
    assert.deepEqual(result.errorsByStatus, { 200: 1 });
  });
});

describe('one-vs-many', () => {
  it('counts by replica what begins after the warm-up, and compares a sample', async (t) => {
    const before = (await stored()).length;
    const result = await passes('one-vs-many', await balancer(t), {
      REPLICAS: 2,
      VUS_PER_REPLICA: 2,
      WARM_UP: '1s',
      DURATION: '3s',
      SAMPLE: 0.5,
    });
    assert.equal(result.durationSeconds, 3);
    assert.equal(result.requests, result.uploads);
    assert.equal(result.bytes, result.uploads * PHOTOGRAPH_BYTES);
    assert.equal(result.byReplica.ant + result.byReplica.bee, result.uploads);
    assert.ok(result.byReplica.ant > 0 && result.byReplica.bee > 0);
    assert.ok((await stored()).length - before > result.uploads, 'the warm-up was counted');
    assert.ok(result.stored.verified > 0);
    assert.deepEqual([result.stored.altered, result.vusMax, result.throttled], [0, 4, false]);
    assert.equal(
      result.series.reduce((sum, { answered }) => sum + answered, 0),
      result.uploads,
    );
  });

  it('says by status what was refused, and does not pass', async (t) => {
    const small = await Replica.start('small', store.url, { MAX_IMAGE_BYTES: '50000' });
    t.after(() => small.stop('SIGKILL'));
    const { code, output, result } = await k6('one-vs-many', small, {
      VUS_PER_REPLICA: 1,
      WARM_UP: '0s',
      DURATION: '1s',
    });
    assert.equal(code, 99, output);
    assert.ok(result.errors > 0);
    assert.deepEqual(result.errorsByStatus, { 413: result.errors });
    assert.equal(result.latencyMs, null);
    const missed = result.thresholds.filter(({ ok }) => !ok).map(({ metric }) => metric);
    assert.deepEqual(missed.sort(), ['naru_answered', 'naru_failed']);
    assert.match(output, /MISSED {2}naru_answered count>0/);
  });
});

describe('seed', () => {
  it('sends as many uploads as asked for, several images each, of several sizes', async () => {
    const before = (await stored()).length;
    const result = await passes('seed', ant, { REQUESTS: 12, VUS: 4, SAMPLE: 1 });
    assert.deepEqual([result.uploads, result.images], [12, 33]);
    assert.equal((await stored()).length - before, 33);
    assert.deepEqual(result.stored, { verified: 33, altered: 0 });
  });

  it('needs no more clients than uploads', async () => {
    const result = await passes('seed', ant, { REQUESTS: 2, VUS: 10 });
    assert.deepEqual([result.uploads, result.vusMax], [2, 2]);
  });
});

describe('breaking-point', { concurrency: true }, () => {
  const steps = { START: 2, STEP: 2, MAX_RATE: 10, STEP_DURATION: '3s', WARM_UP: '0s', P95_MS: 2500 };
  const afterUploads = (count, harm) => {
    let uploads = 0;
    return (request, bytes) => (isUpload(request) && ++uploads > count ? harm(bytes) : bytes);
  };
  const verdicts = ({ steps }) => steps.map(({ rate, verdict }) => `${rate} ${verdict}`);

  it('names the last step that held when answers come late, and goes no further', async (t) => {
    const late = afterUploads(7, (bytes) => new Promise((resolve) => setTimeout(() => resolve(bytes), 4000)));
    const line = await lineTo(t, ant, late);
    const { code, output, result } = await k6('breaking-point', line, steps);
    assert.equal(code, 99, output);
    assert.match(output, /Held: 2 uploads a second/);
    const [first, second, ...others] = verdicts(result);
    assert.deepEqual([first, second, others.at(-1)], ['2 held', '4 MISSED', '10 not tried'], output);
    assert.deepEqual([result.held, result.throttled], [2, false]);
  });

  it('counts a step in which nobody is answered as missed', async (t) => {
    // Of the first step's six uploads one may slip into the second.
    const never = afterUploads(5, () => new Promise(() => undefined));
    const { code, output, result } = await k6('breaking-point', await lineTo(t, ant, never), {
      ...steps,
      MAX_RATE: 4,
    });
    assert.deepEqual(verdicts(result), ['2 held', '4 MISSED'], output);
    assert.deepEqual([code, result.steps[1].answered, result.held], [99, 0, 2]);
  });

  it('says so when nothing broke', async () => {
    const settings = { ...steps, ...NEVER, VUS: 20, MAX_RATE: 2 };
    const { output, result } = await k6('breaking-point', ant, settings);
    assert.deepEqual(verdicts(result), ['2 held'], output);
    assert.match(output, /It didn't break: raise MAX_RATE beyond 2/);
  });

  it('takes a generator with too few clients for no result', async (t) => {
    const slow = (request, bytes) =>
      isUpload(request) ? new Promise((resolve) => setTimeout(() => resolve(bytes), 1500)) : bytes;
    const { code, output, result } = await k6('breaking-point', await lineTo(t, ant, slow), {
      ...steps,
      VUS: 1,
    });
    assert.equal(code, 99, output);
    assert.match(output, /NOT A RESULT/);
    assert.deepEqual([result.throttled, result.held], [true, null]);
  });
});

describe('soak', () => {
  it('keeps nothing of what it uploads', async () => {
    const before = await stored();
    const result = await passes('soak', ant, { RATE: 2, WARM_UP: '0s', DURATION: '3s', VUS: 10, ...NEVER });
    assert.ok(result.uploads >= 6);
    assert.equal(result.byKind.delete.requests, result.uploads);
    assert.deepEqual(await stored(), before);
  });

  it('is no result when k6 could not send what it was asked to', async (t) => {
    const slow = (_, bytes) => new Promise((resolve) => setTimeout(() => resolve(bytes), 500));
    const settings = { RATE: 20, WARM_UP: '0s', DURATION: '2s', VUS: 1, ...NEVER };
    const { code, output, result } = await k6('soak', await lineTo(t, ant, slow), settings);
    assert.equal(code, 99, output);
    assert.match(output, /NOT A RESULT {2}k6 itself held the load back: \d+ iterations were not begun/);
    assert.doesNotMatch(output, /every threshold held/);
    assert.deepEqual([result.throttled, result.vusExhausted], [true, true]);
    assert.ok(result.droppedIterations > 20);
  });
});

describe('cached-reads', () => {
  it('tells how many reads asked no replica, and deletes what it uploaded', async (t) => {
    const before = await stored();
    const cached = await balancer(t, { LB_CACHE: 'on', LB_CACHE_DIR: dir });
    const settings = { RATE: 20, DURATION: '3s', IMAGES: 4, HIT_RATIO: 0.5, VUS: 10, ...NEVER };
    const result = await passes('cached-reads', cached, settings);
    const { byStatus, ratio } = result.cache;
    const watched = [
      'dropped_iterations',
      'naru_answered',
      'naru_failed',
      'naru_hits',
      'naru_latency',
      'naru_stored',
    ];
    assert.deepEqual(result.thresholds.map(({ metric }) => metric).sort(), watched);
    assert.equal(ratio, byStatus.HIT / result.requests);
    // The first image was read before the load, to see whether there is a cache.
    assert.equal(byStatus.MISS, 3);
    assert.equal(result.byReplica.ant + result.byReplica.bee, 3);
    await eventually(async () => (await stored()).length === before.length);
  });

  it('refuses a target without a cache', async () => {
    const before = await stored();
    const { code, output } = await k6('cached-reads', ant, { IMAGES: 2, VUS: 1 });
    assert.equal(code, 108);
    assert.match(output, /reads no image from a cache: no X-Cache/);
    assert.deepEqual(await stored(), before);
  });
});

// None of these looks at the whole bucket.
describe('side by side', { concurrency: true }, () => {
  describe('spike', () => {
    it('tells what it was like before, during and after', async () => {
      const result = await passes('spike', ant, {
        ...{ RATE: 1, SPIKE_RATE: 8, BEFORE: '1s', SPIKE_DURATION: '2s', AFTER: '5s', VUS: 20 },
        ...NEVER,
      });
      const answered = (from, to) =>
        result.series
          .filter(({ second }) => second >= from && second < to)
          .reduce((sum, { answered }) => sum + answered, 0);
      assert.ok(answered(1, 3) >= 3 * answered(0, 1), JSON.stringify(result.series));
      assert.ok(answered(3, 8) >= 3);
    });
  });

  describe('mixed', () => {
    it('does all of it', async () => {
      const result = await passes('mixed', ant, {
        RATE: 10,
        WARM_UP: '0s',
        DURATION: '4s',
        VUS: 20,
        SAMPLE: 1,
        ...NEVER,
      });
      const { read, upload, list, delete: deletions } = result.byKind;
      for (const kind of [read, upload, list, deletions]) assert.ok(kind.requests > 0 && kind.errors === 0);
      assert.ok(read.requests > upload.requests && upload.requests > deletions.requests);
      assert.deepEqual(result.stored, { verified: read.requests, altered: 0 });
    });
  });

  describe('fault', () => {
    it('fails nobody while a replica behind nginx is killed', async (t) => {
      const both = await balancer(t);
      const running = k6('fault', both, { RATE: 3, DURATION: '5s', VUS: 20 });
      await eventually(() => both.log.filter(({ status }) => Number(status) === 201).length >= 4);
      await bee.stop('SIGKILL');
      const { code, output, result } = await running;
      bee = await bee.again();
      assert.equal(code, 0, output);
      assert.ok(result.uploads >= 14);
      assert.deepEqual([result.errors, result.stored.altered], [0, 0]);
      assert.ok(result.byReplica.bee > 0 && result.byReplica.ant > result.byReplica.bee);
    });

    it('asks once more for a read that broke off, and says how often', async (t) => {
      let reads = 0;
      const line = await lineTo(t, ant, (request, bytes) => {
        if (isRead(request) && ++reads === 2) throw new Error('the line is cut');
        return bytes;
      });
      const result = await passes('fault', line, { RATE: 2, DURATION: '2s', VUS: 5 });
      assert.deepEqual([result.brokenReads, result.errors], [1, 0]);
    });

    it('fails when an image is not there any more', async (t) => {
      const line = await lineTo(t, ant, async (request, bytes) => {
        // The acknowledgement goes on to the client, the image goes.
        if (isUpload(request)) {
          const [{ id }] = JSON.parse(bytes).images;
          await ask(`${ant.url}/images/${id}`, { method: 'DELETE' });
        }
        return bytes;
      });
      const { code, output, result } = await k6('fault', line, { RATE: 2, DURATION: '1s', VUS: 5 });
      assert.equal(code, 99, output);
      assert.ok(result.stored.altered > 0);
      assert.equal(result.errorsByStatus[404], result.errors);
    });
  });
});
