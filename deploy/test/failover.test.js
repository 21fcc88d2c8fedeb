// Holds nginx to losing nothing: clients upload steadily while replicas are killed, stopped, restarted, added and
// removed and nginx itself is reloaded. No upload may fail, and what was acknowledged is read back byte for byte. Then
// what nginx can't save: uploads that it passes on as they come, and all replicas gone. Needs what balancing.test.js
// needs:
//
//   node --test deploy/test/failover.test.js
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  eventually,
  form,
  freePort,
  list,
  NGINXES,
  ObjectStore,
  picture,
  problemOf,
  read,
  Replica,
  sha256,
  sleep,
  tally,
  times,
  upload,
} from './harness.js';

const UPLOADS = 200;
const CLIENTS = 6;
// Photographs, and more of what is smaller.
const SIZES = [20_000, 50_000, 20_000, 200_000, 900_000];

let store, ant, bee, cow;

before(async () => {
  store = await ObjectStore.start();
  [ant, bee, cow] = await Promise.all(['ant', 'bee', 'cow'].map((id) => Replica.start(id, store.url)));
});

after(async () => {
  await Promise.all([ant, bee, cow].map((replica) => replica?.stop('SIGKILL')));
  await store?.stop();
});

for (const nginx of NGINXES) {
  const start = async (t, settings) => {
    const balancer = await Balancer.start(
      {
        LB_FAIL_TIMEOUT: '1s',
        // A reload of 1.22 cuts clients that keep their connections; see http/bounds.conf.
        ...(nginx === 'machine' && { LB_CLIENT_KEEPALIVE: '0' }),
        ...settings,
      },
      nginx,
    );
    t.after(() => balancer.stop());
    return balancer;
  };

  describe(`nginx (${nginx}) loses no upload`, () => {
    it('when a replica is killed that holds some', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow) });
      await uploadsDuring(t, balancer, async () => {
        // So that it surely holds some.
        bee.signal('SIGSTOP');
        await sleep(500);
        bee.signal('SIGKILL');
        await bee.exited;
      });
      const tried = balancer.log.filter(({ upstreamStatus }) => upstreamStatus.includes('502, '));
      assert.ok(tried.length > 0, 'the replica held no upload when it was killed');
      bee = await bee.again();
    });

    it('and stores it once, when a replica is killed between storing and answering', async (t) => {
      let stored;
      const isStored = new Promise((resolve) => (stored = resolve));
      // Passes all on to the store, and keeps to itself that an image is there.
      const secretive = http.createServer((request, response) => {
        const { hostname, port } = new URL(store.url);
        const { method, url: path, headers } = request;
        const passed = http.request({ hostname, port, method, path, headers }, (answer) => {
          if (method === 'PUT' && path.includes('/images/')) return stored(path);
          response.writeHead(answer.statusCode, answer.headers);
          answer.pipe(response);
        });
        request.pipe(passed);
      });
      await once(secretive.listen(0, '127.0.0.1'), 'listening');
      t.after(() => {
        secretive.close();
        secretive.closeAllConnections();
      });
      const eel = await Replica.start('eel', `http://127.0.0.1:${secretive.address().port}`);
      t.after(() => eel.stop('SIGKILL'));
      const balancer = await start(t, { LB_REPLICAS: `${eel.address}, ${ant.address} backup` });
      const image = picture(50_000);
      const asked = upload(balancer.url, image);
      const path = await isStored;
      eel.signal('SIGKILL');
      const { status, servedBy, image: told } = await asked;
      assert.deepEqual([status, servedBy], [201, 'ant']);
      assert.ok(path.includes(told.id), 'the second try stored another object than the first');
      assert.deepEqual((await ask(`${balancer.url}/images/${told.id}`)).bytes, image);
    });

    it('and passes on the key that a client has given it', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee) });
      const headers = { 'Idempotency-Key': randomUUID() };
      const image = picture(50_000);
      const first = await upload(balancer.url, image, headers);
      const second = await upload(balancer.url, image, headers);
      assert.deepEqual([first.status, second.status], [201, 201]);
      assert.notEqual(first.servedBy, second.servedBy);
      assert.deepEqual(second.image, first.image);
      assert.equal((await upload(balancer.url, picture(50_000), headers)).status, 422);
      // Without one, two requests are two.
      const others = [await upload(balancer.url, image), await upload(balancer.url, image)];
      assert.equal(new Set([first, ...others].map((answer) => answer.image.id)).size, 3);
    });

    it('when a replica is stopped', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow) });
      await uploadsDuring(t, balancer, async () => assert.deepEqual(await bee.stop(), [0, null]));
      bee = await bee.again();
    });

    it('when each replica in turn is restarted', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow) });
      const servedBy = await uploadsDuring(t, balancer, async (latest) => {
        await ant.stop();
        ant = await ant.again();
        await eventually(() => latest().includes('ant'));
        await bee.stop();
        bee = await bee.again();
        await eventually(() => latest().includes('bee'));
        await cow.stop();
        cow = await cow.again();
        await eventually(() => latest().includes('cow'));
      });
      assert.deepEqual(Object.keys(servedBy).sort(), ['ant', 'bee', 'cow']);
    });

    it('when replicas are removed and added', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee) });
      await uploadsDuring(t, balancer, async (latest) => {
        await balancer.reload({ LB_REPLICAS: list(ant) });
        await eventually(() => !latest().includes('bee'));
        await balancer.reload({ LB_REPLICAS: list(ant, bee, cow) });
        await eventually(() => latest().includes('cow') && latest().includes('bee'));
        await balancer.reload({ LB_REPLICAS: list(bee, cow), LB_ALGORITHM: 'least_conn' });
        await eventually(() => !latest().includes('ant'));
      });
    });

    it('when it is told to read its configuration again', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee) });
      await uploadsDuring(t, balancer, async () => {
        for (let count = 0; count < 10; count++) {
          await balancer.signal('SIGHUP');
          await sleep(300);
        }
      });
    });

    it('when a replica is killed while a photograph is still on its way', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(bee, cow) });
      const photograph = picture(1_900_000);
      const upload = await Upload.begin(balancer, photograph);
      await sleep(500);
      bee.signal('SIGKILL');
      await bee.exited;
      const answer = await upload.finish();
      assert.equal(answer.status, 201, String(answer.bytes));
      assert.equal(answer.headers['x-served-by'], 'cow');
      await isKept(balancer, JSON.parse(answer.bytes).images[0].url, sha256(photograph));
      assert.doesNotMatch(balancer.errors, /temporary file/, 'it was spooled to disk');
      bee = await bee.again();
    });
  });

  describe(`nginx (${nginx}) tells the client`, () => {
    it('to send a large upload again when its replica is killed halfway', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(bee, cow) });
      const large = picture(6_000_000);
      const upload = await Upload.begin(balancer, large);
      await eventually(() => isUploading(bee));
      bee.signal('SIGKILL');
      const answer = await upload.answer();
      assert.equal(problemOf(answer, 'nginx'), '503 OVERLOADED');
      assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
      await bee.exited;

      const again = await (await Upload.begin(balancer, large)).finish();
      assert.equal(again.status, 201, String(again.bytes));
      await isKept(balancer, JSON.parse(again.bytes).images[0].url, sha256(large));
      bee = await bee.again();
    });

    it('to come again, rather than to ask more than three replicas', async (t) => {
      const gone = await times(5, async () => `127.0.0.1:${await freePort()}`, 1);
      const balancer = await start(t, { LB_REPLICAS: `${gone.join(', ')}, ${ant.address}` });
      const answer = await ask(`${balancer.url}/images`, { method: 'POST', ...form(picture(20_000)) });
      assert.equal(problemOf(answer, 'nginx'), '503 OVERLOADED');
      const [line] = await balancer.logged(({ method }) => method === 'POST');
      // Behind the colon: handed on to see whether the list has changed meanwhile, which it hasn't.
      assert.deepEqual(line.upstream.split(' : ')[0].split(', '), gone.slice(0, 3));
      assert.equal(
        (await ask(`${balancer.url}/images`, { method: 'POST', ...form(picture(20_000)) })).status,
        201,
      );
    });

    it('to come again, and soon, when all replicas are gone; and serves again when one is back', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(bee, cow) });
      for (const replica of [bee, cow]) await replica.stop('SIGKILL');
      const since = Date.now();
      for (const [method, path] of [
        ['POST', '/images'],
        ['POST', '/images'],
        ['GET', '/images'],
        ['GET', `/images/${'0'.repeat(32)}`],
      ]) {
        const answer = await ask(balancer.url + path, {
          method,
          ...(method === 'POST' && form(picture(20_000))),
        });
        assert.equal(problemOf(answer, 'nginx'), '503 OVERLOADED');
        assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
      }
      assert.ok(Date.now() - since < 5000, 'it took long to say so');
      [bee, cow] = await Promise.all([bee.again(), cow.again()]);
      await eventually(async () => (await ask(`${balancer.url}/images`)).status === 200);
    });
  });
}

/**
 * Uploads while `event` happens, at least UPLOADS times and until it is over, and resolves with how many each replica
 * took. `event` is called with a function that tells who took the last 20.
 */
async function uploadsDuring(t, balancer, event) {
  const kept = [];
  const failed = [];
  let sent = 0;
  let happening;
  let isOver = false;
  await times(
    CLIENTS,
    async () => {
      // As most clients do, each keeps its connection for the next upload, which nginx has to leave it for.
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      while (sent < UPLOADS || !isOver) {
        // What takes this long needs the machine as well.
        if (sent >= UPLOADS) await sleep(200);
        const image = picture(SIZES[sent++ % SIZES.length]);
        const answer = await ask(`${balancer.url}/images`, { agent, method: 'POST', ...form(image) }).catch(
          String,
        );
        if (answer.status === 201) {
          const { url } = JSON.parse(answer.bytes).images[0];
          kept.push({ url, sha: sha256(image), servedBy: answer.headers['x-served-by'] });
        } else failed.push(answer.status ? `${answer.status} ${answer.bytes}` : answer);
        if (sent >= UPLOADS / 4) {
          const latest = () => kept.slice(-20).map(({ servedBy }) => servedBy);
          happening ??= event(latest).finally(() => (isOver = true));
        }
      }
      agent.destroy();
    },
    CLIENTS,
  );
  await happening;
  const servedBy = tally(kept.map((image) => image.servedBy));
  t.diagnostic(
    `${balancer.nginx}: ${kept.length} kept, ${failed.length} failed; ${JSON.stringify(servedBy)}`,
  );
  assert.deepEqual(failed, []);
  assert.ok(kept.length >= UPLOADS);
  await times(kept.length, (index) => isKept(balancer, kept[index].url, kept[index].sha), CLIENTS);
  return servedBy;
}

async function isKept(balancer, url, sha) {
  const { status, bytes } = await ask(balancer.url + url);
  assert.equal(status, 200);
  assert.equal(sha256(bytes), sha, `${url} is not what was sent`);
}

async function isUploading({ url }) {
  const metrics = String((await ask(`${url}/metrics`)).bytes);
  return /^naru_upload_memory_bytes(?:\{[^}]*\})? [1-9]/m.test(metrics);
}

/** An upload in two halves. */
class Upload {
  static async begin({ url }, image) {
    const upload = new Upload();
    const { headers, body } = form(image);
    upload.rest = body.subarray(body.length / 2);
    upload.request = http.request(`${url}/images`, {
      method: 'POST',
      agent: false,
      headers: { ...headers, 'Content-Length': body.length },
    });
    upload.answered = once(upload.request, 'response');
    // Told to whoever awaits it, which is later.
    upload.answered.catch(() => {});
    await new Promise((resolve) => upload.request.write(body.subarray(0, body.length / 2), resolve));
    return upload;
  }

  async finish() {
    this.request.end(this.rest);
    return this.answer();
  }

  async answer() {
    const [answer] = await this.answered;
    return read(answer);
  }
}
