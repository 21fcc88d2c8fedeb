// LB_LAYER=l4: connections are spread, not requests, and the replicas hear of the client by the PROXY protocol.
// Whatever connects from another 127.x.y.z is another client.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  form,
  NGINXES,
  ObjectStore,
  photograph,
  photographOf,
  Replica,
  sleep,
  tally,
  times,
} from './harness.js';

let store, replicas;

before(async () => {
  store = await ObjectStore.start();
  replicas = [];
  for (const id of ['r1', 'r2', 'r3']) {
    replicas.push(await Replica.start(id, store.url, { PROXY_PROTOCOL: 'true' }));
  }
});
after(async () => {
  for (const replica of replicas ?? []) await replica.stop();
  await store?.stop();
});

for (const nginx of NGINXES) {
  describe(`LB_LAYER=l4, with the nginx of the ${nginx}`, () => {
    let balancer;

    const settings = (more = {}) => ({
      LB_LAYER: 'l4',
      LB_REPLICAS: replicas.map(({ address }) => address).join(','),
      ...more,
    });
    before(async () => {
      balancer = await Balancer.start(settings(), nginx);
    });
    after(() => balancer?.stop());

    /** Who answers on a connection of its own. */
    const servedBy = async (localAddress = '127.0.0.1') => {
      const { status, headers } = await ask(`${balancer.url}/health/live`, { localAddress });
      assert.equal(status, 200);
      return headers['x-served-by'];
    };
    const shares = async (count, clientOf, atOnce) =>
      tally(await times(count, (n) => servedBy(clientOf?.(n)), atOnce));
    /** Other settings, once new connections follow them. */
    const use = async (more) => {
      await balancer.reload(settings({ LB_ALGORITHM: 'round_robin', ...more }));
      await sleep(1_000);
    };

    for (const [size, image] of Object.entries({
      '900 kB': photograph,
      '6 MB': () => photographOf(6_000_000),
    })) {
      it(`carries ${size} in, and back byte for byte`, async () => {
        const bytes = await image();
        const taken = await ask(`${balancer.url}/images`, { method: 'POST', ...form(bytes) });
        assert.equal(taken.status, 201);
        const [{ url }] = JSON.parse(taken.bytes).images;
        for (let read = 0; read < 3; read++) assert.ok((await ask(balancer.url + url)).bytes.equals(bytes));
      });
    }

    it('logs each connection with its client, its bytes and its replica', async () => {
      const { body, headers } = form(await photograph());
      await ask(`${balancer.url}/images`, { method: 'POST', headers, body, localAddress: '127.3.0.1' });
      const [line] = await balancer.logged(({ client }) => client === '127.3.0.1');
      assert.equal(line.status, 200);
      assert.ok(line.requestBytes > body.length, `${line.requestBytes} bytes`);
      assert.ok(line.responseBytes > 100);
      assert.ok(replicas.some(({ address }) => address === line.upstream));
    });

    it('tells the replica who the client is', async () => {
      const id = `l4-${nginx}-${Date.now()}`;
      await ask(`${balancer.url}/images/x`, { headers: { 'X-Request-Id': id }, localAddress: '127.3.0.2' });
      let line;
      for (let tries = 0; tries < 200 && !line; tries++) {
        await sleep(25);
        line = replicas.flatMap(({ lines }) => lines).find(({ requestId }) => requestId === id);
      }
      assert.equal(line.req.remoteAddress, '127.3.0.2');
    });

    it('keeps a connection with its replica for all of its requests', async () => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      const served = [];
      for (let asked = 0; asked < 6; asked++) {
        served.push((await ask(`${balancer.url}/health/live`, { agent })).headers['x-served-by']);
      }
      agent.destroy();
      assert.equal(new Set(served).size, 1);
    });

    it('gives connections to each replica in turn', async () => {
      // Each of nginx's workers has its turns in common with the others.
      assert.deepEqual(await shares(30), { r1: 10, r2: 10, r3: 10 });
    });

    it('gives by weight', async () => {
      const [{ address: heavy }, { address: light }] = replicas;
      await use({ LB_REPLICAS: `${heavy} weight=3, ${light}` });
      assert.deepEqual(await shares(20), { r1: 15, r2: 5 });
    });

    it('gives to whoever has the fewest connections with least_conn', async () => {
      await use({ LB_ALGORITHM: 'least_conn' });
      const held = [];
      const hold = async () => {
        const agent = new http.Agent({ keepAlive: true });
        held.push(agent);
        return (await ask(`${balancer.url}/health/live`, { agent })).headers['x-served-by'];
      };
      try {
        // Whoever has one already is passed over.
        assert.equal(new Set([await hold(), await hold(), await hold()]).size, 3);
        const [fourth, fifth] = [await hold(), await hold()];
        const sixth = replicas.map(({ id }) => id).find((id) => id !== fourth && id !== fifth);
        let got = 0;
        for (let asked = 0; asked < 10; asked++) {
          // nginx may still count one that has just been closed.
          await sleep(50);
          if ((await servedBy()) === sixth) got++;
        }
        assert.ok(got >= 7, `${got} of 10`);
      } finally {
        for (const agent of held) agent.destroy();
      }
    });

    it('gives a client to one replica with ip_hash, and clients to all', async () => {
      await use({ LB_ALGORITHM: 'ip_hash' });
      for (const client of ['127.0.0.1', '127.3.0.3', '127.3.0.4']) {
        assert.equal(Object.keys(await shares(8, () => client)).length, 1, client);
      }
      assert.equal(Object.keys(await shares(60, (n) => `127.4.0.${n + 1}`)).length, 3);
    });

    it('gives to all with random', async () => {
      await use({ LB_ALGORITHM: 'random' });
      assert.equal(Object.keys(await shares(60)).length, 3);
    });

    it('hangs up on whom LB_DENY names', async () => {
      await use({ LB_DENY: '127.5.0.0/16' });
      await assert.rejects(servedBy('127.5.0.1'), /ECONNRESET|socket hang up/);
      assert.ok(await servedBy());
      await use({ LB_DENY: '' });
    });

    it('passes over a replica that is gone, for every new connection', async () => {
      await use();
      await replicas[2].stop('SIGKILL');
      try {
        const served = await shares(40);
        assert.deepEqual(Object.keys(served).sort(), ['r1', 'r2']);
        const taken = await times(9, async () => {
          const { status } = await ask(`${balancer.url}/images`, {
            method: 'POST',
            ...form(await photograph()),
          });
          return status;
        });
        assert.deepEqual(tally(taken), { 201: 9 });
      } finally {
        replicas[2] = await replicas[2].again();
      }
      // LB_FAIL_TIMEOUT is 5 s.
      for (let tries = 0; !('r3' in (await shares(6))); tries++) {
        assert.ok(tries < 100, 'it is never asked again');
        await sleep(100);
      }
    });

    it('refuses what needs requests to be seen, one by one', async () => {
      const blind = {
        LB_ALGORITHM: 'hash',
        LB_READ_REPLICAS: '127.0.0.1:1',
        LB_LARGE_REPLICAS: '127.0.0.1:1',
        TRUSTED_PROXIES: '127.0.0.1',
        LB_TLS: 'on',
        LB_LIMITS: 'on',
        LB_CACHE: 'on',
      };
      await assert.rejects(balancer.reload(settings(blind)), ({ message }) => {
        for (const name of Object.keys(blind)) {
          const said = message.split('\n').filter((line) => line.trim().startsWith(name));
          assert.equal(said.length, 1, `${name}: ${message}`);
          assert.match(said[0], /L4 balancer/);
        }
        return true;
      });
      assert.ok(await servedBy());
    });
  });
}
