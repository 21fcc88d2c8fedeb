// Who watches the replicas tells nginx which of them are ready (apps/replica-watch, LB_REPLICAS_FILE): one that hangs, isn't
// ready or drains gets nothing within 3 s, and gets requests again within 3 s of being well, while no upload fails. Needs
// what balancing.test.js needs:
//
//   node --test deploy/test/feed.test.js
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  becomes,
  eventually,
  form,
  list,
  NGINXES,
  ObjectStore,
  picture,
  problemOf,
  Replica,
  sleep,
  tally,
  times,
  Watch,
} from './harness.js';

/** What the issue of a hung replica is measured by. */
const PROMISED_MS = 3_000;
/** A machine that has no CPU to spare is given another chance to keep it. */
const TRIES = 4;
/** Between two uploads of the steady load. */
const UPLOAD_EVERY_MS = 150;
/** Those that a replica holds which hangs among them. */
const IN_FLIGHT = 16;

let common, own, ant, bee, cow, mute;

before(async () => {
  // bee has a store of its own, so that it alone can lose it.
  [common, own] = await times(2, () => ObjectStore.start({ OBJECT_STORE_FAULTS: 'on' }));
  [ant, bee, cow] = await Promise.all([
    Replica.start('ant', common.url),
    Replica.start('bee', own.url),
    Replica.start('cow', common.url, { DRAIN_DELAY_MS: '3000' }),
  ]);
  // Accepts and never answers.
  const server = createServer(() => {}).listen(0, '127.0.0.1');
  await once(server, 'listening');
  mute = { address: `127.0.0.1:${server.address().port}`, server };
});

after(async () => {
  mute?.server.close().unref();
  await Promise.all([ant, bee, cow].map((replica) => replica?.stop('SIGKILL')));
  await Promise.all([common, own].map((store) => store?.stop()));
});

for (const nginx of NGINXES) {
  describe(`nginx (${nginx}) follows who watches the replicas`, () => {
    let dir, file, watch, balancer;
    const settings = () => ({
      LB_REPLICAS: list(ant, bee, cow, mute),
      LB_REPLICAS_FILE: file,
      // A reload of 1.22 cuts clients that keep their connections; see http/bounds.conf.
      ...(nginx === 'machine' && { LB_CLIENT_KEEPALIVE: '0' }),
    });
    const serving = () => watch.lists.at(-1)?.replicas.join(', ');
    /** Who answers; asked until workers of before a reload are gone. */
    const answering = async () => {
      const answers = await times(6, () => ask(`${balancer.url}/openapi.json`), 1);
      return Object.keys(tally(answers.map(({ headers }) => headers['x-served-by'])))
        .sort()
        .join(' ');
    };

    before(async () => {
      dir = await mkdtemp(join(tmpdir(), 'naru-feed-'));
      file = join(dir, 'serving');
      watch = await Watch.start(file, list(ant, bee, cow, mute));
      await becomes(serving, list(ant, bee, cow));
      balancer = await Balancer.start(settings(), nginx, dir);
    });
    after(async () => {
      await balancer?.stop();
      await watch?.stop();
      if (dir) await rm(dir, { recursive: true });
    });

    it('sends nothing to a replica that accepts and never answers', async () => {
      await becomes(answering, 'ant bee cow');
      assert.ok(watch.lists.every(({ replicas }) => !replicas.includes(mute.address)));
      assert.ok(balancer.log.every(({ upstream }) => !upstream.includes(mute.address)));
    });

    it('takes out a replica that hangs within 3 s, has it back within 3 s of its going on, and loses nothing', async (t) => {
      const load = new Load(balancer);
      t.after(() => load.end());
      const soonest = { out: Infinity, back: Infinity };
      for (let tries = 0; tries < TRIES; tries++) {
        if (soonest.out <= PROMISED_MS && soonest.back <= PROMISED_MS) break;
        await sleep(1_000);
        const stopped = Date.now();
        bee.signal('SIGSTOP');
        await becomes(serving, list(ant, cow), 600);
        // As long as it takes a client to see that, and a while longer.
        await sleep(4_000);
        const continued = Date.now();
        bee.signal('SIGCONT');
        await becomes(serving, list(ant, bee, cow), 600);
        await sleep(3_000);
        const toBee = (await load.given()).filter(({ upstream }) => upstream.includes(bee.address));
        const out = Math.max(...toBee.map(({ at }) => at).filter((at) => at < continued)) - stopped;
        const back = Math.min(...toBee.map(({ at }) => at).filter((at) => at >= continued)) - continued;
        t.diagnostic(`${nginx}: out after ${out} ms, back after ${back} ms`);
        soonest.out = Math.min(soonest.out, out);
        soonest.back = Math.min(soonest.back, back);
      }
      assert.deepEqual(await load.end(), []);
      assert.ok(soonest.out <= PROMISED_MS && soonest.back <= PROMISED_MS, JSON.stringify(soonest));
    });

    it('takes out a replica that drains before it closes its port', async (t) => {
      const load = new Load(balancer);
      t.after(() => load.end());
      await sleep(1_000);
      cow.signal('SIGTERM');
      await becomes(serving, list(ant, bee), 600);
      const [code] = await cow.exited;
      assert.equal(code, 0);
      cow = await cow.again();
      await becomes(serving, list(ant, bee, cow), 600);
      assert.deepEqual(await load.end(), []);
    });

    it('takes out a replica whose store is away, and has it back', async () => {
      await breakStore(own, { error: { status: 500 } });
      await becomes(serving, list(ant, cow), 600);
      await becomes(answering, 'ant cow');
      await breakStore(own, {});
      await becomes(serving, list(ant, bee, cow), 600);
      await becomes(answering, 'ant bee cow');
    });

    it("passes on the replicas' own 503, and soon, where none of them reaches the store", async () => {
      for (const store of [common, own]) await breakStore(store, { error: { status: 500 } });
      await becomes(serving, list(ant, bee, cow), 600);
      await eventually(async () => {
        const since = Date.now();
        const answer = await ask(`${balancer.url}/images`, { method: 'POST', ...form(picture(20_000)) });
        if (answer.status !== 503 || Date.now() - since > 3_000) return false;
        assert.equal(problemOf(answer), '503 STORE_UNAVAILABLE');
        assert.match(answer.headers['x-served-by'], /^(?:ant|bee|cow)$/);
        assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
        return true;
      });
      for (const store of [common, own]) await breakStore(store, {});
      await becomes(serving, list(ant, bee, cow), 600);
      await becomes(answering, 'ant bee cow');
    });

    it('goes on with the list it has when nobody watches any more, and follows the next who does', async (t) => {
      const load = new Load(balancer);
      t.after(() => load.end());
      await watch.stop('SIGKILL');
      await bee.stop('SIGKILL');
      await sleep(3_000);
      assert.deepEqual(await load.end(), []);
      assert.equal(await answering(), 'ant cow');
      watch = await Watch.start(file, list(ant, bee, cow, mute));
      await becomes(serving, list(ant, cow), 600);
      bee = await bee.again();
      await becomes(serving, list(ant, bee, cow), 600);
      await becomes(answering, 'ant bee cow');
    });

    it('names a list that makes no sense once, and goes on with the one it has', async (t) => {
      await watch.stop();
      t.after(async () => {
        watch = await Watch.start(file, list(ant, bee, cow, mute));
      });
      for (const nonsense of ['127.0.0.1', `${ant.address}; daemon on`, '999.1.1.1:3000']) {
        await put(file, nonsense);
        await eventually(() => balancer.errors.includes(`the list in ${file} is refused`));
        await sleep(2_500);
        assert.equal(balancer.errors.split('is refused').length, 2, balancer.errors);
        assert.equal(await answering(), 'ant bee cow');
        balancer.errors = '';
      }
      await put(file, list(cow));
      await becomes(answering, 'cow');

      // In a folder that it sees, too, where it runs in a container.
      const folder = await mkdtemp(join(tmpdir(), 'naru-feed-'));
      const nonsense = join(folder, 'serving');
      await put(nonsense, 'nonsense');
      const other = await Balancer.start(
        { ...settings(), LB_REPLICAS: list(ant), LB_REPLICAS_FILE: nonsense },
        nginx,
        folder,
      );
      t.after(async () => {
        await other.stop();
        await rm(folder, { recursive: true });
      });
      await eventually(() =>
        /beginning with LB_REPLICAS, since .*"nonsense" is no replica/.test(other.errors),
      );
      assert.equal((await ask(`${other.url}/openapi.json`)).headers['x-served-by'], 'ant');
    });
  });

  describe(`an old worker of nginx (${nginx})`, () => {
    let dir, file, balancer;
    before(async () => {
      dir = await mkdtemp(join(tmpdir(), 'naru-feed-'));
      file = join(dir, 'serving');
      await put(file, list(bee));
      const settings = { LB_REPLICAS: list(bee), LB_REPLICAS_FILE: file };
      balancer = await Balancer.start(settings, nginx, dir);
    });
    after(async () => {
      bee.signal('SIGCONT');
      await balancer?.stop();
      if (dir) await rm(dir, { recursive: true });
    });

    it('hands an upload on to those of now when all on its list are gone', async () => {
      bee.signal('SIGSTOP');
      const image = picture(500_000);
      const headers = { 'x-request-id': randomUUID(), ...form(image).headers };
      const held = ask(`${balancer.url}/images`, { method: 'POST', ...form(image), headers });
      await sleep(1_000);
      await put(file, list(ant));
      // Asked sooner, the replica that hangs would have it for 30 s.
      await sleep(2_000);
      await becomes(
        async () => (await ask(`${balancer.url}/openapi.json`)).headers['x-served-by'] ?? 'nobody',
        'ant',
      );
      await bee.stop('SIGKILL');
      const answer = await held;
      assert.equal(answer.status, 201, String(answer.bytes));
      assert.equal(answer.headers['x-served-by'], 'ant');
      assert.equal(answer.headers['x-request-id'], headers['x-request-id']);
      const { url } = JSON.parse(answer.bytes).images[0];
      assert.deepEqual((await ask(ant.url + url)).bytes, image);
      bee = await bee.again();
    });
  });
}

/** One upload after the other begins, whether or not those of before are done. */
class Load {
  #uploads = [];
  #answers = [];
  #timer;
  #inFlight = 0;

  constructor(balancer) {
    this.balancer = balancer;
    this.#timer = setInterval(() => this.#upload(), UPLOAD_EVERY_MS);
  }

  #upload() {
    // A machine without any CPU to spare would only have more and more of them.
    if (this.#inFlight >= IN_FLIGHT) return;
    this.#inFlight++;
    const upload = { at: Date.now(), id: randomUUID() };
    this.#uploads.push(upload);
    const { body, headers } = form(picture(20_000));
    this.#answers.push(
      ask(`${this.balancer.url}/images`, {
        method: 'POST',
        body,
        headers: { ...headers, 'x-request-id': upload.id },
      })
        .then(
          ({ status, bytes }) => (upload.failed = status === 201 ? undefined : `${status} ${bytes}`),
          (error) => (upload.failed = String(error)),
        )
        .finally(() => this.#inFlight--),
    );
  }

  /** When each upload began, and which replicas it was given to. */
  async given() {
    await Promise.all(this.#answers);
    await sleep(500);
    const upstreams = new Map(this.balancer.log.map(({ requestId, upstream }) => [requestId, upstream]));
    return this.#uploads.map(({ at, id }) => ({ at, upstream: upstreams.get(id) ?? '' }));
  }

  /** Resolves with what has failed. */
  async end() {
    clearInterval(this.#timer);
    await Promise.all(this.#answers);
    return this.#uploads.map(({ failed }) => failed).filter(Boolean);
  }
}

async function breakStore({ url }, faults) {
  const answer = await fetch(`${url}/-/faults`, { method: 'PUT', body: JSON.stringify(faults) });
  assert.equal(answer.status, 200);
}

/** As apps/replica-watch does it. */
async function put(file, line) {
  await writeFile(`${file}.new`, `${line}\n`);
  await rename(`${file}.new`, file);
}
