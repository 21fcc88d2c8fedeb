// Holds nginx to how it says it shares the work out: every LB_ALGORITHM, the options of a replica, the switching by
// request, what is passed on of a request, and what balancer.sh refuses. Real replicas, and a store of ours behind
// them; one replica has its store far away, which makes it slow. Needs the built service (npm test builds it), nginx,
// and Docker for the nginx of docker-compose.yml (NGINX=machine does without):
//
//   node --test deploy/test/balancing.test.js
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  eventually,
  form,
  freePort,
  isOpen,
  list,
  NGINXES,
  ObjectStore,
  picture,
  problemOf,
  Replica,
  sleep,
  tally,
  times,
} from './harness.js';

const FAR_MS = 800;
// Clients that nginx believes to be where they say.
const BELIEVED = { TRUSTED_PROXIES: '127.0.0.1' };
const CHUNKED = { 'Transfer-Encoding': 'chunked' };

let store, far, ant, bee, cow, snail, images;

before(async () => {
  store = await ObjectStore.start();
  far = await Relay.start(new URL(store.url).port, FAR_MS);
  [ant, bee, cow] = await Promise.all(['ant', 'bee', 'cow'].map((id) => Replica.start(id, store.url)));
  snail = await Replica.start('snail', `http://127.0.0.1:${far.port}`);
  images = await times(60, async () => JSON.parse((await uploadTo(bee)).bytes).images[0].url);
});

after(async () => {
  await Promise.all([ant, bee, cow, snail].map((replica) => replica?.stop('SIGKILL')));
  far?.stop();
  await store?.stop();
});

for (const nginx of NGINXES) {
  const start = async (t, settings) => {
    const balancer = await Balancer.start(settings, nginx);
    t.after(() => balancer.stop());
    return balancer;
  };
  /** Each replica's share of so many requests, in the answers and in nginx's log. */
  const share = async (t, balancer, count, send, atOnce) => {
    const answers = await times(count, (index) => send(balancer, index), atOnce);
    for (const { status, bytes } of answers) assert.ok(status < 300, `${status} ${bytes}`);
    const ids = new Set(answers.map(({ headers }) => headers['x-request-id']));
    const logged = await balancer.logged(({ requestId }) => ids.has(requestId), count);
    const served = tally(answers.map(servedBy));
    assert.deepEqual(tally(logged.map((line) => line.servedBy)), served);
    t.diagnostic(`${nginx}, of ${count}: ${JSON.stringify(served)}`);
    return Object.fromEntries([ant, bee, cow, snail].map(({ id }) => [id, (served[id] ?? 0) / count]));
  };

  describe(`nginx (${nginx}) shares requests out`, () => {
    it('in turn: round_robin', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow) });
      const shares = await share(t, balancer, 60, uploadTo);
      for (const { id } of [ant, bee, cow]) isNear(shares[id], 1 / 3);
    });

    it('by weight', async (t) => {
      const weighed = `${ant.address}, ${bee.address} weight=2, ${cow.address} weight=3`;
      const balancer = await start(t, { LB_REPLICAS: weighed });
      const shares = await share(t, balancer, 60, uploadTo);
      isNear(shares.ant, 1 / 6);
      isNear(shares.bee, 1 / 3);
      isNear(shares.cow, 1 / 2);
    });

    it('in turn even if one is slow: round_robin', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, snail) });
      isNear((await share(t, balancer, 60, readFrom)).snail, 1 / 3);
    });

    it('with less for the slow: least_conn', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, snail), LB_ALGORITHM: 'least_conn' });
      const shares = await share(t, balancer, 150, readFrom);
      assert.ok(shares.snail < 1 / 5, 'the slow one got about as much as the others');
      assert.ok(Math.min(shares.ant, shares.bee) > 1 / 5, 'a fast one got little');
    });

    it('at random: random', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow), LB_ALGORITHM: 'random' });
      const shares = await share(t, balancer, 90, readFrom);
      for (const { id } of [ant, bee, cow]) assert.ok(shares[id] > 1 / 9, `${id} got little`);
    });

    it('at random, with less for the slow: random', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, snail), LB_ALGORITHM: 'random' });
      const shares = await share(t, balancer, 150, readFrom);
      assert.ok(shares.snail < 1 / 5, 'the slow one got about as much as the others');
    });

    it('by the network of the client: ip_hash', async (t) => {
      const balancer = await start(t, {
        ...BELIEVED,
        LB_REPLICAS: list(ant, bee, cow),
        LB_ALGORITHM: 'ip_hash',
      });
      const from = (address) => (to, index) =>
        ask(to.url + images[0], { headers: { 'X-Forwarded-For': address(index) } });
      const office = await share(
        t,
        balancer,
        20,
        from((index) => `198.51.100.${index + 1}`),
      );
      assert.equal(Math.max(...Object.values(office)), 1, 'one office met several replicas');
      const world = await share(
        t,
        balancer,
        90,
        from((index) => `10.${index}.7.1`),
      );
      for (const { id } of [ant, bee, cow]) assert.ok(world[id] > 1 / 6, `${id} got little`);
    });

    it('by image, and uploads at random: hash', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow), LB_ALGORITHM: 'hash' });
      const uploads = await share(t, balancer, 60, uploadTo);
      for (const { id } of [ant, bee, cow]) assert.ok(uploads[id] > 1 / 12, `${id} got few uploads`);

      const readers = await readersOf(images, balancer);
      const shares = tally(Object.values(readers));
      t.diagnostic(`${nginx}, of ${images.length} images: ${JSON.stringify(shares)}`);
      for (const { id } of [ant, bee, cow]) assert.ok(shares[id] > 60 / 12, `${id} got few images`);
      for (let again = 0; again < 2; again++) assert.deepEqual(await readersOf(images, balancer), readers);
    });

    it('so that a replica that leaves takes only its own images along: hash', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, bee, cow, snail), LB_ALGORITHM: 'hash' });
      const readers = await readersOf(images, balancer);
      await balancer.reload({ LB_REPLICAS: list(ant, bee, cow) });
      const lost = images.findIndex((image) => readers[image] === 'snail');
      await settled(balancer, (answer) => servedBy(answer) !== 'snail', lost);

      const later = await readersOf(images, balancer);
      const moved = images.filter((image) => later[image] !== readers[image]);
      t.diagnostic(`${nginx}: ${moved.length} of ${images.length} images moved`);
      assert.deepEqual(
        moved.filter((image) => readers[image] !== 'snail'),
        [],
      );
      assert.ok(moved.length > 60 / 20 && moved.length < 60 / 2, `${moved.length} of 60 moved`);
      assert.ok(new Set(moved.map((image) => later[image])).size > 1, 'one replica got all that moved');
    });

    if (nginx === 'machine') {
      it('but not by cookie, as it is too old for that', async () => {
        const settings = { LB_REPLICAS: list(ant), LB_STICKY: 'cookie' };
        await assert.rejects(Balancer.start(settings, nginx), {
          code: 1,
          message: /^ {2}LB_STICKY=cookie needs nginx 1\.29\.6 or newer; this is 1\.\d+\.\d+/m,
        });
      });
    } else {
      it('by cookie: LB_STICKY', async (t) => {
        const balancer = await start(t, { LB_REPLICAS: list(ant, bee), LB_STICKY: 'cookie' });
        const shares = await share(t, balancer, 20, uploadTo);
        isNear(shares.ant, 1 / 2);

        const first = await uploadTo(balancer);
        const [cookie] = first.headers['set-cookie'];
        assert.match(cookie, /; httponly/i);
        const own = servedBy(first) === 'ant' ? ant : bee;
        const headers = { Cookie: cookie.split(';')[0] };
        const again = await share(t, balancer, 20, (to) => uploadWith(headers, to));
        assert.equal(again[own.id], 1);

        await own.stop('SIGKILL');
        const elsewhere = await share(t, balancer, 10, (to) => uploadWith(headers, to));
        assert.equal(elsewhere[own.id], 0);
        if (own === ant) ant = await ant.again();
        else bee = await bee.again();
      });
    }
  });

  describe(`nginx (${nginx}) heeds what is said of a replica`, () => {
    it('backup: it gets requests while the others are out, and only then', async (t) => {
      const balancer = await start(t, {
        LB_REPLICAS: `${ant.address}, ${bee.address} backup`,
        LB_FAIL_TIMEOUT: '1s',
      });
      assert.equal((await share(t, balancer, 20, uploadTo)).ant, 1);
      await ant.stop('SIGKILL');
      assert.equal((await share(t, balancer, 20, uploadTo)).bee, 1);
      ant = await ant.again();
      await settled(balancer, (answer) => servedBy(answer) === 'ant');
      assert.equal((await share(t, balancer, 20, uploadTo)).ant, 1);
    });

    it('down: it gets none, even if the others are out', async (t) => {
      const balancer = await start(t, {
        LB_REPLICAS: `${ant.address} down, ${bee.address}, ${await vacant()}`,
      });
      assert.equal((await share(t, balancer, 20, uploadTo)).bee, 1);
    });

    it('max_conns: so many requests at once, and a busy one gives way to others', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: `${ant.address}, ${snail.address} max_conns=1` });
      const since = snail.lines.length;
      const shares = await share(t, balancer, 60, readFrom);
      assert.ok(shares.snail > 0 && shares.snail < 1 / 3);
      await sleep(FAR_MS);
      assert.equal(mostAtOnce(snail.lines.slice(since)), 1);
    });

    it('LB_MAX_CONNS: when all are full a client is told to come again', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant, snail), LB_MAX_CONNS: '1' });
      const since = snail.lines.length;
      const answers = await times(60, () => uploadTo(balancer));
      const refused = answers.filter(({ status }) => status !== 201);
      assert.ok(refused.length > 0 && refused.length < 60, `${refused.length} were refused`);
      for (const answer of refused) {
        assert.equal(problemOf(answer, 'nginx'), '503 OVERLOADED');
        assert.match(answer.headers['retry-after'], /^[1-9]\d*$/);
      }
      await sleep(FAR_MS);
      assert.equal(mostAtOnce(snail.lines.slice(since)), 1);
    });

    it('LB_MAX_CONNS: a connection that is kept, but idle, is none of them', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant), LB_MAX_CONNS: '1', LB_KEEPALIVE: '1' });
      await share(t, balancer, 50, uploadTo, 1);
    });
  });

  describe(`nginx (${nginx}) switches by request`, () => {
    it('reads to LB_READ_REPLICAS, large uploads to LB_LARGE_REPLICAS, and nothing else', async (t) => {
      const balancer = await start(t, {
        LB_REPLICAS: list(ant),
        LB_READ_REPLICAS: list(bee),
        LB_LARGE_REPLICAS: list(cow),
      });
      const overhead = form(Buffer.alloc(0)).body.length;
      const sent = [
        ['POST', '/images', 'ant', form(picture(2_000_000 - overhead))],
        ['POST', '/images', 'cow', form(picture(2_000_001 - overhead))],
        ['POST', '/images', 'cow', form(picture(1000)), CHUNKED],
        ['GET', images[0], 'bee'],
        ['HEAD', images[0], 'bee'],
        ['GET', `${images[0]}/info`, 'bee'],
        ['DELETE', `/images/${'0'.repeat(32)}`, 'ant'],
        ['GET', '/images', 'ant'],
        ['GET', '/openapi.json', 'ant'],
        ['GET', '/docs', 'ant'],
        ['GET', '/', 'ant'],
        ['GET', '/metrics', 'ant'],
      ];
      for (const [method, path, replica, { headers: own, body } = {}, headers] of sent) {
        const answer = await ask(balancer.url + path, { method, body, headers: { ...own, ...headers } });
        if (method === 'POST') assert.equal(answer.status, 201);
        assert.equal(servedBy(answer), replica, `${method} ${path}`);
      }
    });

    it('and has each group share out by LB_ALGORITHM', async (t) => {
      const balancer = await start(t, {
        LB_REPLICAS: list(ant),
        LB_READ_REPLICAS: list(bee, snail),
        LB_LARGE_REPLICAS: list(ant, snail),
        LB_ALGORITHM: 'least_conn',
      });
      for (const send of [readFrom, (to) => uploadWith(CHUNKED, to)]) {
        const shares = await share(t, balancer, 40, send);
        assert.ok(shares.snail < 2 / 5, 'the slow one got about as much as the other');
      }
    });
  });

  describe(`nginx (${nginx}) passes on`, () => {
    it('many requests over few connections', async (t) => {
      const groups = [];
      for (const replica of [ant, bee, cow]) groups.push(await Relay.start(replica.port));
      t.after(() => groups.forEach((relay) => relay.stop()));
      const [all, reads, large] = groups.map(({ port }) => `127.0.0.1:${port}`);
      const balancer = await start(t, {
        LB_REPLICAS: all,
        LB_READ_REPLICAS: reads,
        LB_LARGE_REPLICAS: large,
      });
      await times(50, () => uploadTo(balancer), 2);
      await times(50, () => readFrom(balancer), 2);
      await times(50, () => uploadWith(CHUNKED, balancer), 2);
      // Two at a time, by each of its workers.
      for (const { connections } of groups) assert.ok(connections > 0 && connections < 25, `${connections}`);
    });

    it('a protocol that both sides change to, and keeps the connection of all others', async (t) => {
      const app = await App.start();
      t.after(() => app.stop());
      const balancer = await start(t, { LB_REPLICAS: app.address });
      for (let count = 0; count < 30; count++) {
        const { headers } = JSON.parse((await ask(`${balancer.url}/images/live`)).bytes);
        assert.equal(headers.connection, undefined);
        assert.equal(headers.upgrade, undefined);
      }
      assert.ok(app.connections < 15, `${app.connections} connections for 30 requests`);

      const request = http.request(`${balancer.url}/images/live`, {
        agent: false,
        headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13' },
      });
      request.end();
      const [answer, socket] = await Promise.race([once(request, 'upgrade'), once(request, 'response')]);
      assert.equal(answer.statusCode, 101);
      assert.equal(answer.headers.upgrade, 'websocket');
      for (const word of ['Hello', '나루']) {
        socket.write(word);
        assert.equal(String((await once(socket, 'data'))[0]), word);
      }
      socket.destroy();
    });

    const claims = {
      'X-Forwarded-For': '203.0.113.6, 198.51.100.9, 10.0.0.5',
      'X-Forwarded-Proto': 'https',
      'X-Forwarded-Host': 'images.example.org',
      Forwarded: 'for=203.0.113.6;proto=https;host=images.example.org',
      'X-Real-IP': '203.0.113.6',
    };
    for (const [who, settings] of [
      ['anybody', {}],
      ['somebody who is not in TRUSTED_PROXIES', { TRUSTED_PROXIES: '10.0.0.0/8, 192.0.2.1' }],
    ]) {
      it(`nothing that ${who} claims of whom a request is from`, async (t) => {
        const app = await App.start();
        t.after(() => app.stop());
        const balancer = await start(t, { LB_REPLICAS: app.address, ...settings });
        const { headers } = JSON.parse((await ask(`${balancer.url}/images/id`, { headers: claims })).bytes);
        assert.equal(headers['x-forwarded-for'], '127.0.0.1');
        assert.equal(headers['x-forwarded-proto'], 'http');
        assert.equal(headers['x-forwarded-host'], `127.0.0.1:${balancer.port}`);
        assert.equal(headers.host, `127.0.0.1:${balancer.port}`);
        assert.equal(headers.forwarded, undefined);
        assert.equal(headers['x-real-ip'], undefined);
        const [line] = await balancer.logged(({ uri }) => uri === '/images/id');
        assert.equal(line.client, '127.0.0.1');
      });
    }

    it('what a trusted proxy says: the last client that is none of the proxies', async (t) => {
      const app = await App.start();
      t.after(() => app.stop());
      const balancer = await start(t, {
        LB_REPLICAS: app.address,
        TRUSTED_PROXIES: '127.0.0.1, 10.0.0.0/8',
      });
      const seen = async (path, headers) =>
        JSON.parse((await ask(balancer.url + path, { headers })).bytes).headers;
      const told = await seen('/images/id', claims);
      assert.equal(told['x-forwarded-for'], '198.51.100.9');
      assert.equal(told['x-forwarded-proto'], 'https');
      assert.equal(told['x-forwarded-host'], 'images.example.org');
      assert.equal(told.forwarded, undefined);
      assert.equal(told['x-real-ip'], undefined);
      const [line] = await balancer.logged(({ uri }) => uri === '/images/id');
      assert.equal(line.client, '198.51.100.9');

      const nonsense = { 'X-Forwarded-Proto': 'gopher', 'X-Forwarded-Host': 'images.example.org/"' };
      const untold = await seen('/images/nonsense', nonsense);
      assert.equal(untold['x-forwarded-proto'], 'http');
      assert.equal(untold['x-forwarded-host'], `127.0.0.1:${balancer.port}`);
    });

    it('the client to the log of the replica', async (t) => {
      const balancer = await start(t, { ...BELIEVED, LB_REPLICAS: list(ant) });
      const headers = { 'X-Forwarded-For': '198.51.100.9', 'X-Request-Id': randomBytes(8).toString('hex') };
      await uploadWith(headers, balancer);
      const line = await eventually(() =>
        ant.lines.find(({ requestId }) => requestId === headers['X-Request-Id']),
      );
      assert.equal(line.req.forwardedFor, '198.51.100.9');
    });
  });

  describe(`balancer.sh (${nginx})`, () => {
    const isOld = nginx === 'machine';
    const good = '127.0.0.1:3000';
    const algorithms =
      /LB_ALGORITHM holds "fastest"; expected round_robin, least_conn, ip_hash, hash or random/;
    const none = /LB_REPLICAS: names no replica; expected host:port/;
    const mistakes = [
      ['no replica', { LB_REPLICAS: '' }, none],
      ['no replica but commas', { LB_REPLICAS: ' , ,' }, none],
      ['an unknown algorithm', { LB_REPLICAS: good, LB_ALGORITHM: 'fastest' }, algorithms],
      [
        'a weight of 0',
        { LB_REPLICAS: `${good} weight=0` },
        /"weight=0" of 127\.0\.0\.1:3000; expected a weight from 1/,
      ],
      ['none but backups', { LB_REPLICAS: `${good} backup` }, /LB_REPLICAS: names none but backup and down/],
      [
        'none but such as are down',
        { LB_REPLICAS: `${good} down` },
        /LB_REPLICAS: names none but backup and down/,
      ],
      [
        'a replica without a port',
        { LB_REPLICAS: 'api' },
        /LB_REPLICAS: "api" is no replica; expected host:port/,
      ],
      ['a port that none is', { LB_REPLICAS: 'api:65536' }, /the port of "api:65536" is not from 1 to 65535/],
      ['what would end the line', { LB_REPLICAS: `${good};` }, /"127\.0\.0\.1:3000;" is no replica/],
      [
        'an unknown option',
        { LB_REPLICAS: `${good} slow_start=9s` },
        /"slow_start=9s" of 127\.0\.0\.1:3000; expected weight=N/,
      ],
      [
        'a backup that can not be',
        { LB_REPLICAS: `${good}, api:1 backup`, LB_ALGORITHM: 'hash' },
        /backup of api:1 can not be had/,
      ],
      [
        'no number',
        { LB_REPLICAS: good, LB_MAX_CONNS: '-1' },
        /LB_MAX_CONNS holds "-1"; expected a whole number/,
      ],
      [
        'a time without a unit',
        { LB_REPLICAS: good, LB_FAIL_TIMEOUT: '5' },
        /LB_FAIL_TIMEOUT holds "5"; expected a time/,
      ],
      [
        'a wrong group of its own',
        { LB_REPLICAS: good, LB_READ_REPLICAS: 'api' },
        /LB_READ_REPLICAS: "api" is no replica/,
      ],
      [
        'no network',
        { LB_REPLICAS: good, TRUSTED_PROXIES: 'cdn' },
        /TRUSTED_PROXIES holds "cdn"; expected addresses/,
      ],
      [
        'several at once',
        {
          LB_REPLICAS: `api weight=0, ${good} best`,
          LB_ALGORITHM: 'fastest',
          LB_KEEPALIVE: '0',
          LB_PORT: '0',
        },
        /"api" is no replica/,
        /"best" of 127\.0\.0\.1:3000/,
        algorithms,
        /LB_KEEPALIVE holds "0"/,
        /LB_PORT holds "0"/,
      ],
    ];
    if (isOld) {
      mistakes.push([
        'resolve',
        { LB_REPLICAS: `${good} resolve` },
        /LB_REPLICAS says resolve, which needs nginx 1\.27\.3 or newer; this is 1\.\d+/,
      ]);
    }
    for (const [what, settings, ...named] of mistakes) {
      it(`refuses to start with ${what}`, async () => {
        const port = String(await freePort());
        const refusal = await Balancer.start({ LB_PORT: port, ...settings }, nginx).then(
          () => assert.fail('it started'),
          (error) => error,
        );
        assert.equal(refusal.code, 1, refusal.message);
        assert.deepEqual(refusal.files, []);
        for (const pattern of named) assert.match(refusal.message, pattern);
        assert.equal(refusal.message.match(/^ {2}/gm).length, named.length, refusal.message);
        assert.equal(await isOpen(port), false);
      });
    }

    it('refuses to start on a port in use, and leaves it to its owner', async (t) => {
      const owner = await App.start();
      t.after(() => owner.stop());
      const port = String(owner.port);
      await assert.rejects(Balancer.start({ LB_REPLICAS: good, LB_PORT: port }, nginx), {
        code: 1,
        files: [],
        message: new RegExp(`^  port ${port} is in use`, 'm'),
      });
      assert.equal((await ask(`http://127.0.0.1:${port}/`)).status, 200);
    });

    it('leaves a running nginx as it is when it refuses to reload', async (t) => {
      const balancer = await start(t, { LB_REPLICAS: list(ant) });
      const refused = [
        [{ LB_REPLICAS: list(bee), LB_ALGORITHM: 'fastest' }, /can't reload:\n {2}LB_ALGORITHM/],
        // Only nginx itself can tell.
        [{ LB_REPLICAS: 'nobody.invalid:3000' }, /can't reload: nginx refuses/],
      ];
      for (const [settings, message] of refused) {
        await assert.rejects(balancer.reload(settings), { message });
        assert.equal((await share(t, balancer, 5, uploadTo)).ant, 1);
      }
      await balancer.reload({ LB_REPLICAS: list(bee) });
      await settled(balancer, (answer) => servedBy(answer) === 'bee');
    });
  });
}

function uploadTo(to) {
  return uploadWith({}, to);
}

/** Node declares the length of a body itself, but for a chunked one. */
function uploadWith(headers, { url }) {
  const { headers: own, body } = form(picture(20_000));
  return ask(`${url}/images`, { method: 'POST', headers: { ...own, ...headers }, body });
}

function readFrom({ url }, index = 0) {
  return ask(url + images[index % images.length], { method: 'HEAD' });
}

/** Which replica each image is read through. */
async function readersOf(paths, balancer) {
  const answers = await times(paths.length, (index) => readFrom(balancer, index));
  return Object.fromEntries(paths.map((path, index) => [path, servedBy(answers[index])]));
}

function servedBy({ headers }) {
  return headers['x-served-by'];
}

function isNear(actual, expected) {
  assert.ok(Math.abs(actual - expected) <= expected / 10, `${actual} is not within 10 % of ${expected}`);
}

/** Resolves once 30 answers on end fit: a reload and a return take their time, which is the machine's. */
async function settled(balancer, fits, index = 0) {
  for (let inRow = 0, tries = 0; inRow < 30; tries++) {
    assert.ok(tries < 2000, 'it goes on as before');
    if (fits(await readFrom(balancer, index))) inRow++;
    else {
      inRow = 0;
      await sleep(20);
    }
  }
}

/** How many requests a replica worked on at once, by its log; what overlaps by less than its slowness is chance. */
function mostAtOnce(lines) {
  const spans = lines
    .filter(({ durationMs }) => durationMs !== undefined)
    .map(({ time, durationMs }) => ({ from: Date.parse(time) - durationMs, to: Date.parse(time) }));
  assert.ok(spans.length > 0);
  return Math.max(
    ...spans.map(
      ({ from }) => spans.filter((other) => other.from <= from && other.to - FAR_MS / 2 > from).length,
    ),
  );
}

/** An address where nobody listens. */
async function vacant() {
  return `127.0.0.1:${await freePort()}`;
}

/** Passes TCP connections on to a port of this machine, each piece of an answer so much later, and counts them. */
class Relay {
  connections = 0;

  static async start(to, delayMs = 0) {
    const relay = new Relay();
    relay.server = createServer((near) => {
      relay.connections++;
      const other = connect(to, '127.0.0.1');
      const close = () => [near, other].forEach((socket) => socket.destroy());
      near.pipe(other);
      other.on('data', (bytes) => setTimeout(() => near.write(bytes), delayMs));
      other.on('end', () => setTimeout(() => near.end(), delayMs));
      for (const socket of [near, other]) socket.on('error', close);
    });
    await once(relay.server.listen(0, '127.0.0.1'), 'listening');
    relay.port = relay.server.address().port;
    return relay;
  }

  stop() {
    this.server.close();
  }
}

/** Stands in for an app behind this nginx: tells the headers it got, and echoes where it is asked to upgrade. */
class App {
  connections = 0;

  static async start() {
    const app = new App();
    app.server = http.createServer((request, response) => {
      request.resume();
      response.setHeader('X-Served-By', 'app');
      response.end(JSON.stringify({ headers: request.headers }));
    });
    app.server.on('connection', () => app.connections++);
    app.server.on('upgrade', ({ headers }, socket) => {
      assert.equal(headers.connection.toLowerCase(), 'upgrade');
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${headers.upgrade}\r\n\r\n`,
      );
      socket.pipe(socket);
    });
    await once(app.server.listen(0, '127.0.0.1'), 'listening');
    app.port = app.server.address().port;
    app.address = `127.0.0.1:${app.port}`;
    return app;
  }

  stop() {
    this.server.close();
    this.server.closeAllConnections();
  }
}
