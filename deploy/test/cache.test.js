// LB_CACHE=on: which reads are answered from nginx's copies, for how long, and what still reaches the store.
// The store's own traffic is counted by the replicas, in /metrics.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  becomes,
  form,
  NGINXES,
  ObjectStore,
  photograph,
  picture,
  problemOf,
  Replica,
  sleep,
  tally,
  times,
} from './harness.js';

const MiB = 1024 * 1024;
/** LB_CACHE_TIME of 2s, which nginx counts in whole seconds. */
const EXPIRED_MS = 3100;

let store, wire, replicas;

/** The way to the store, which can be cut. */
class Wire {
  static async to(url) {
    const wire = new Wire();
    const { port } = new URL(url);
    wire.sockets = new Set();
    wire.server = createServer((near) => {
      if (wire.isCut) return near.destroy();
      const far = connect(port, '127.0.0.1');
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ]) {
        wire.sockets.add(socket);
        socket.on('error', () => {}).on('close', () => other.destroy() && wire.sockets.delete(socket));
      }
      near.pipe(far).pipe(near);
    }).listen(0, '127.0.0.1');
    await once(wire.server, 'listening');
    wire.url = `http://127.0.0.1:${wire.server.address().port}`;
    return wire;
  }

  cut() {
    this.isCut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  mend() {
    this.isCut = false;
  }

  stop() {
    this.cut();
    this.server.close();
  }
}

before(async () => {
  store = await ObjectStore.start();
  wire = await Wire.to(store.url);
  replicas = [];
  for (const id of ['r1', 'r2']) {
    replicas.push(
      await Replica.start(id, wire.url, { S3_MAX_ATTEMPTS: '2', MAX_UPLOAD_MEMORY_BYTES: '536870912' }),
    );
  }
});
after(async () => {
  for (const replica of replicas ?? []) await replica.stop();
  wire?.stop();
  await store?.stop();
});

for (const nginx of NGINXES) {
  describe(`LB_CACHE=on, with the nginx of the ${nginx}`, () => {
    /** One keeps its copies for as long as the tests take, the other for 2 s. */
    let steady, brief;

    before(async () => {
      const settings = { LB_CACHE: 'on', LB_REPLICAS: replicas.map(({ address }) => address).join(',') };
      steady = await Balancer.start({ ...settings, LB_CACHE_TIME: '10m' }, nginx);
      brief = await Balancer.start({ ...settings, LB_CACHE_TIME: '2s' }, nginx);
    });
    after(async () => {
      await steady?.stop();
      await brief?.stop();
    });

    for (const [size, image] of Object.entries({
      '900 kB': photograph,
      '3 MB': () => picture(3_000_000),
      '20 MiB': () => picture(20 * MiB),
    })) {
      it(`reads ${size} from the store once, and gives the same bytes ever after`, async () => {
        const bytes = await image();
        const { url } = await put(bytes);
        const before = await storeCalls('get');
        const first = await get(steady, url);
        assert.deepEqual([first.status, first.headers['x-cache']], [200, 'MISS']);
        assert.match(first.headers['x-served-by'], /^r[12]$/);
        const second = await get(steady, url);
        assert.deepEqual([second.status, second.headers['x-cache']], [200, 'HIT']);
        assert.equal(second.headers['x-served-by'], 'nginx');
        for (const answer of [first, second]) assert.ok(answer.bytes.equals(bytes));
        for (const name of ['content-type', 'content-length', 'etag', 'last-modified', 'cache-control']) {
          assert.equal(second.headers[name], first.headers[name], name);
        }
        for (const name of ['content-disposition', 'x-content-type-options', 'accept-ranges']) {
          assert.equal(second.headers[name], first.headers[name], name);
        }
        assert.equal(await storeCalls('get'), before + 1);
      });
    }

    it('gives each answer its own request id, and says in the log where it came from', async () => {
      const { url } = await put(picture(1000));
      for (const cache of ['MISS', 'HIT']) {
        const id = randomUUID();
        const answer = await get(steady, url, { 'X-Request-Id': id });
        assert.equal(answer.headers['x-request-id'], id);
        const [line] = await steady.logged(({ requestId }) => requestId === id);
        assert.equal(line.cache, cache);
        assert.equal(line.upstream === '', cache === 'HIT');
      }
    });

    it('lets no client ask past the copy, nor for one of its own', async () => {
      const { id, url } = await put(picture(1000));
      await get(steady, url);
      const before = await storeCalls();
      for (const headers of [
        { 'Cache-Control': 'no-cache', Pragma: 'no-cache' },
        { Cookie: 'a=b', Authorization: 'Bearer x' },
        { 'Accept-Encoding': 'gzip', Accept: 'text/html' },
        { 'X-Forwarded-Host': 'evil.example', 'X-Accel-Expires': '0' },
      ]) {
        assert.equal((await get(steady, url, headers)).headers['x-cache'], 'HIT');
      }
      for (const spelt of [
        `${url}?x=1`,
        `/images/%${id.charCodeAt(0).toString(16)}${id.slice(1)}`,
        `/${url}`,
      ]) {
        assert.equal((await get(steady, spelt)).headers['x-cache'], 'HIT', spelt);
      }
      assert.equal(await storeCalls(), before);
    });

    it('answers heads, ranges and conditions out of the copy', async () => {
      const bytes = picture(100_000);
      const { url, etag } = await put(bytes);
      const { 'last-modified': modified } = (await get(steady, url)).headers;
      const before = await storeCalls();
      for (const [range, from, to] of [
        ['bytes=0-15', 0, 16],
        ['bytes=50000-', 50_000, 100_000],
        ['bytes=-10', 99_990, 100_000],
      ]) {
        const answer = await get(steady, url, { Range: range, 'If-Range': etag });
        assert.deepEqual([answer.status, answer.headers['x-cache']], [206, 'HIT']);
        assert.ok(answer.bytes.equals(bytes.subarray(from, to)), range);
        assert.equal(answer.headers['content-range'], `bytes ${from}-${to - 1}/100000`);
      }
      assert.equal((await get(steady, url, { Range: 'bytes=0-15', 'If-Range': '"other"' })).status, 200);
      for (const condition of [{ 'If-None-Match': etag }, { 'If-Modified-Since': modified }]) {
        const answer = await get(steady, url, condition);
        assert.deepEqual([answer.status, answer.headers['x-cache'], answer.bytes.length], [304, 'HIT', 0]);
        assert.equal(answer.headers.etag, etag);
      }
      assert.equal((await get(steady, url, { 'If-None-Match': '"other"' })).status, 200);
      const head = await ask(steady.url + url, { method: 'HEAD' });
      assert.deepEqual(
        [head.status, head.headers['content-length'], head.headers['x-cache']],
        [200, '100000', 'HIT'],
      );
      const outside = await get(steady, url, { Range: 'bytes=100000-' });
      assert.equal(problemOf(outside, 'nginx'), '416 RANGE_NOT_SATISFIABLE');
      assert.equal(outside.headers['content-range'], 'bytes */100000');
      assert.equal(
        problemOf(await get(steady, url, { 'If-Match': '"other"' }), 'nginx'),
        '412 PRECONDITION_FAILED',
      );
      assert.equal(await storeCalls(), before);
    });

    for (const [what, headers, status] of [
      ['a range', { Range: 'bytes=10-19' }, 206],
      ['a condition', { 'If-None-Match': 'ITS ETAG' }, 304],
      ['a head', undefined, 200],
    ]) {
      it(`keeps the whole image when the first to ask wants only ${what}`, async () => {
        const bytes = picture(100_000);
        const { url, etag } = await put(bytes);
        if (headers?.['If-None-Match']) headers['If-None-Match'] = etag;
        const first = await ask(steady.url + url, { method: headers ? 'GET' : 'HEAD', headers });
        assert.deepEqual([first.status, first.headers['x-cache']], [status, 'MISS']);
        if (status === 206) assert.ok(first.bytes.equals(bytes.subarray(10, 20)));
        const second = await get(steady, url);
        assert.deepEqual([second.status, second.headers['x-cache']], [200, 'HIT']);
        assert.ok(second.bytes.equals(bytes));
      });
    }

    it('makes one read of the store for a hundred who miss the same image at once', async (context) => {
      const bytes = await photograph();
      const { url } = await put(bytes);
      const before = await storeCalls('get');
      const started = Date.now();
      const answers = await times(100, () => get(steady, url), 100);
      context.diagnostic(`100 readers in ${Date.now() - started} ms`);
      for (const answer of answers) assert.ok(answer.bytes.equals(bytes));
      assert.equal(await storeCalls('get'), before + 1);
    });

    it('keeps most reads from the store when some images are read more than others', async (context) => {
      const images = await times(60, () => put(picture(20_000)));
      // Zipf: the nth image is read 1/n as often as the first.
      const weights = images.map((_, rank) => 1 / (rank + 1));
      const total = weights.reduce((sum, weight) => sum + weight);
      const draw = () => {
        let left = Math.random() * total;
        return images[
          Math.max(
            0,
            weights.findIndex((weight) => (left -= weight) <= 0),
          )
        ];
      };
      const before = await storeCalls('get');
      const asked = new Set();
      const answers = await times(1000, () => {
        const { url } = draw();
        asked.add(url);
        return get(steady, url);
      });
      const reads = (await storeCalls('get')) - before;
      const hits = tally(answers.map(({ headers }) => headers['x-cache']));
      context.diagnostic(`${reads} of 1000 reads reached the store: ${JSON.stringify(hits)}`);
      assert.equal(reads, asked.size);
      assert.ok(1 - reads / 1000 >= 0.9);
    });

    it('keeps neither what is known of an image, nor the list, nor a refusal', async () => {
      const { url } = await put(picture(1000));
      for (const path of [`${url}/info`, '/images?limit=1', '/images/00000000000000000000000000000000']) {
        const before = await storeCalls();
        const answers = [await get(steady, path), await get(steady, path)];
        for (const { headers } of answers) assert.match(headers['x-served-by'], /^r[12]$/, path);
        assert.equal(await storeCalls(), before + 2, path);
      }
    });

    it('forgets every copy with another LB_CACHE_VERSION', async () => {
      const { url } = await put(picture(1000));
      await get(steady, url);
      assert.equal((await get(steady, url)).headers['x-cache'], 'HIT');
      await steady.reload({ LB_CACHE_VERSION: '2' });
      await becomes(async () => (await get(steady, url)).headers['x-cache'], 'MISS');
      await becomes(async () => (await get(steady, url)).headers['x-cache'], 'HIT');
    });

    it('asks about a copy after LB_CACHE_TIME, which costs no bytes of the store', async () => {
      const bytes = await photograph();
      const { url } = await put(bytes);
      await get(brief, url);
      const before = await storeCalls('get');
      for (let round = 0; round < 2; round++) {
        await sleep(EXPIRED_MS);
        const asked = await get(brief, url);
        assert.equal(asked.headers['x-cache'], 'REVALIDATED');
        assert.ok(asked.bytes.equals(bytes));
        assert.equal(asked.headers['x-served-by'], 'nginx');
      }
      assert.equal(await storeCalls('get'), before);
    });

    it('serves a deleted image no longer than LB_CACHE_TIME, however many read it then', async (context) => {
      const { url } = await put(picture(50_000));
      await get(brief, url);
      const seen = [];
      let isOver = false;
      const readers = Array.from({ length: 8 }, async () => {
        while (!isOver) {
          const at = Date.now();
          const { status, headers } = await get(brief, url);
          seen.push({ at, status, cache: headers['x-cache'] });
          await sleep(5);
        }
      });
      // Over several expiries, so that the DELETE meets one that is just being asked about.
      await sleep(2 * EXPIRED_MS);
      const deleted = Date.now();
      assert.equal((await ask(brief.url + url, { method: 'DELETE' })).status, 204);
      const gone = Date.now();
      await sleep(EXPIRED_MS + 1000);
      isOver = true;
      await Promise.all(readers);
      const last = Math.max(...seen.filter(({ status }) => status === 200).map(({ at }) => at));
      context.diagnostic(`${seen.length} reads; the last of the image ${last - deleted} ms after its DELETE`);
      assert.deepEqual(tally(seen.map(({ status }) => status))[503], undefined);
      assert.ok(last <= gone + EXPIRED_MS, `read ${last - gone} ms after it was gone`);
      assert.ok(seen.some(({ cache }) => cache === 'HIT'));
      assert.equal(problemOf(await get(brief, url)), '404 NOT_FOUND');
    });

    it('serves a copy that is too old while the store is away, and keeps no refusal', async () => {
      const bytes = await photograph();
      const { url } = await put(bytes);
      const other = await put(bytes);
      await get(brief, url);
      await sleep(EXPIRED_MS);
      wire.cut();
      try {
        const stale = await get(brief, url);
        assert.deepEqual([stale.status, stale.headers['x-cache']], [200, 'STALE']);
        assert.equal(stale.headers['x-served-by'], 'nginx');
        assert.ok(stale.bytes.equals(bytes));
        const range = await get(brief, url, { Range: 'bytes=10-19' });
        assert.deepEqual([range.status, range.headers['x-cache']], [206, 'STALE']);
        assert.ok(range.bytes.equals(bytes.subarray(10, 20)));
        assert.match(problemOf(await get(brief, other.url)), /^503 STORE_UNAVAILABLE$/);
      } finally {
        wire.mend();
      }
      assert.equal((await get(brief, other.url)).status, 200);
      assert.equal((await get(brief, url)).headers['x-cache'], 'REVALIDATED');
    });

    it('serves a copy that is too old while no replica is there', async () => {
      const bytes = await photograph();
      const { url } = await put(bytes);
      const other = await put(bytes);
      await get(brief, url);
      await sleep(EXPIRED_MS);
      await Promise.all(replicas.map((replica) => replica.stop('SIGKILL')));
      try {
        for (let asked = 0; asked < 3; asked++) {
          const stale = await get(brief, url);
          assert.deepEqual([stale.status, stale.headers['x-cache']], [200, 'STALE']);
          assert.ok(stale.bytes.equals(bytes));
        }
        assert.equal(problemOf(await get(brief, other.url), 'nginx'), '503 OVERLOADED');
      } finally {
        replicas = await Promise.all(replicas.map((replica) => replica.again()));
      }
      await becomes(async () => (await get(brief, other.url)).status, 200);
      await becomes(async () => (await get(brief, url)).headers['x-cache'], 'REVALIDATED');
    });
  });
}

function get({ url }, path, headers = {}) {
  return ask(url + path, { headers });
}

/** Stores an image behind nginx's back. */
async function put(bytes) {
  const { status, bytes: answer } = await ask(`${replicas[0].url}/images`, {
    method: 'POST',
    ...form(bytes),
  });
  assert.equal(status, 201, String(answer));
  return JSON.parse(answer).images[0];
}

/** How often the replicas have called the store: for `operation`, or for whatever reads of it. */
async function storeCalls(operation = '(?:get|head|list)') {
  const calls = new RegExp(
    `^naru_store_call_duration_seconds_count\\{operation="${operation}",.*\\} (\\d+)$`,
    'gm',
  );
  let sum = 0;
  for (const { url } of replicas) {
    const { bytes } = await ask(`${url}/metrics`);
    for (const [, count] of String(bytes).matchAll(calls)) sum += Number(count);
  }
  return sum;
}
