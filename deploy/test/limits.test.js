// What one client may cost the others, and who may come at all: LB_LIMITS, sizes, slowness, methods, addresses.
// A client is an address here as well: whatever connects from another 127.x.y.z is another client.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import {
  ask,
  Balancer,
  becomes,
  form,
  NGINXES,
  ObjectStore,
  picture,
  problemOf,
  read,
  Replica,
  sleep,
  tally,
  times,
} from './harness.js';

const LIMITS = {
  LB_LIMITS: 'on',
  LB_UPLOADS_PER_SECOND: '1',
  LB_UPLOADS_BURST: '3',
  LB_READS_PER_SECOND: '1',
  LB_READS_BURST: '5',
  LB_CONNECTIONS: '4',
  // 5,048,576 with the form around them.
  MAX_IMAGE_BYTES: '2000000',
  MAX_IMAGES_PER_REQUEST: '2',
  LB_INSIDE: '127.0.0.1',
};
const MAX_BODY_BYTES = 2 * 2_000_000 + 1_048_576;
const SMALL = form(picture(1000));
const LARGE = form(picture(2_100_000));
const NO_IMAGE = '/images/00000000000000000000000000000000';
/** 20 MB, which no buffer of a connection holds. */
const HUGE = form(picture(20_000_000));

let clients = 0;
/** An address that nobody has come from yet. */
const stranger = () => `127.1.${Math.floor(clients / 250)}.${(clients++ % 250) + 1}`;

const sites = new Map();

class Site {
  /** With clients that are slow from the first moment, since it takes 30 s until they are cut. */
  async start(nginx) {
    this.store = await ObjectStore.start();
    this.replica = await Replica.start('r1', this.store.url, { UPLOAD_TIMEOUT_MS: '8000' });
    this.balancer = await Balancer.start({ ...LIMITS, LB_REPLICAS: this.replica.address }, nginx);
    this.url = this.balancer.url;
    const taken = await ask(`${this.replica.url}/images`, { method: 'POST', ...HUGE });
    assert.equal(taken.status, 201, String(taken.bytes));
    this.dribbling = dribble(this.balancer.port);
    this.silent = fallSilent(this.balancer.port);
    this.unread = neverRead(this.balancer, JSON.parse(taken.bytes).images[0].url);
  }

  async stop() {
    await this.balancer?.stop();
    await this.replica?.stop();
    await this.store?.stop();
  }

  async stored() {
    const { bytes } = await ask(`${this.replica.url}/images?limit=100`);
    return JSON.parse(bytes).images.length;
  }

  upload(client, { headers, body } = SMALL, more = {}) {
    return ask(`${this.url}/images`, {
      method: 'POST',
      headers: { ...headers, ...more },
      body,
      localAddress: client,
    });
  }

  get(path, client, headers = {}) {
    return ask(this.url + path, { headers, localAddress: client });
  }

  /** The answer to the head of an upload whose body is not sent. */
  async answerToHead(headers, client) {
    const request = http.request(`${this.url}/images`, {
      method: 'POST',
      agent: false,
      headers: { 'Content-Type': 'multipart/form-data; boundary=naru', ...headers },
      localAddress: client,
    });
    request.flushHeaders();
    const [response] = await once(request, 'response');
    const answer = await read(response);
    request.destroy();
    return answer;
  }
}

before(async () => {
  for (const nginx of NGINXES) {
    sites.set(nginx, new Site());
    await sites.get(nginx).start(nginx);
  }
});
after(async () => {
  for (const site of sites.values()) await site.stop();
});

for (const nginx of NGINXES) {
  describe(`what a client may cost, with the nginx of the ${nginx}`, () => {
    let site;
    before(() => (site = sites.get(nginx)));

    for (const [size, upload] of Object.entries({ small: SMALL, streamed: LARGE })) {
      it(`takes ${size} uploads at the rate and the burst, and stores nothing of the others`, async () => {
        const [greedy, honest] = [stranger(), stranger()];
        const before = await site.stored();
        const started = Date.now();
        const [answers, ...untouched] = await Promise.all([
          times(12, () => site.upload(greedy, upload), 3),
          ...[1, 2].map(() => site.upload(honest, upload)),
        ]);
        const seconds = Math.ceil((Date.now() - started) / 1000);
        const { 201: taken, 429: refused } = tally(answers.map(({ status }) => status));
        assert.equal(taken + refused, 12);
        assert.ok(taken >= 4 && taken <= 4 + seconds, `${taken} of 12 in ${seconds} s`);
        const problems = answers.filter(({ status }) => status === 429);
        for (const answer of problems) {
          assert.equal(problemOf(answer, 'nginx'), '429 RATE_LIMITED');
          assert.equal(answer.headers['retry-after'], '1');
        }
        for (const { status } of untouched) assert.equal(status, 201);
        assert.equal(await site.stored(), before + taken + 2);
      });

      it(`refuses ${size} uploads over the rate before their body is sent`, async () => {
        const greedy = stranger();
        await times(12, () => site.upload(greedy), 4);
        const answer = await site.answerToHead({ 'Content-Length': upload.body.length }, greedy);
        assert.equal(problemOf(answer, 'nginx'), '429 RATE_LIMITED');
      });
    }

    it('takes one more after as long as the rate says', async () => {
      const greedy = stranger();
      await times(12, () => site.upload(greedy), 4);
      await sleep(2200);
      assert.equal((await site.upload(greedy)).status, 201);
    });

    it('counts reads apart from uploads', async () => {
      const greedy = stranger();
      // One after the other: nginx counts a request as in flight for a moment after its answer, and the bound on those is four.
      await times(8, () => site.upload(greedy), 1);
      const started = Date.now();
      const answers = await times(20, (n) => site.get(NO_IMAGE + (n % 2 ? '' : '/info'), greedy), 1);
      const seconds = Math.ceil((Date.now() - started) / 1000);
      const { 404: asked, 429: refused } = tally(answers.map(({ status }) => status));
      assert.equal(asked + refused, 20);
      assert.ok(asked >= 6 && asked <= 6 + seconds, `${asked} of 20 in ${seconds} s`);
      problemOf(
        answers.find(({ status }) => status === 429),
        'nginx',
      );
      assert.equal((await site.get(NO_IMAGE, stranger())).status, 404);
    });

    it('bounds the requests that one client has in flight, and tells slow ones so, while others go on', async () => {
      const [greedy, honest] = [stranger(), stranger()];
      const started = Date.now();
      const slow = Array.from({ length: 4 }, () => {
        const request = http.request(`${site.url}/images`, {
          method: 'POST',
          agent: false,
          headers: { ...LARGE.headers, 'Content-Length': LARGE.body.length },
          localAddress: greedy,
        });
        request.write(LARGE.body.subarray(0, 1000));
        return once(request, 'response').then(async ([response]) => {
          const answer = await read(response);
          request.destroy();
          return answer;
        });
      });
      // Until nginx has all four.
      while ((await site.get('/openapi.json', greedy)).status === 200) {
        assert.ok(Date.now() - started < 7000, 'the fifth request in flight is not refused');
      }
      const fifth = await site.get('/openapi.json', greedy);
      assert.equal(problemOf(fifth, 'nginx'), '429 RATE_LIMITED');
      assert.equal((await site.upload(honest)).status, 201);
      for (const answer of await Promise.all(slow)) {
        assert.equal(problemOf(answer, 'r1'), '408 UPLOAD_TIMEOUT');
      }
      assert.equal((await site.get('/openapi.json', greedy)).status, 200);
    });

    it('believes no X-Forwarded-For of a client, neither in the limits nor in a log', async () => {
      const greedy = stranger();
      const said = () => ({ 'X-Forwarded-For': `203.0.113.${clients++ % 250}` });
      const id = randomUUID();
      const answers = await times(12, (n) =>
        site.upload(greedy, SMALL, { ...said(), 'X-Request-Id': `${id}.${n}` }),
      );
      const { 429: refused } = tally(answers.map(({ status }) => status));
      assert.ok(refused >= 4, `${refused} of 12`);
      const lines = await site.balancer.logged(({ requestId }) => requestId.startsWith(id), 12);
      assert.deepEqual([...new Set(lines.map(({ client }) => client))], [greedy]);
      const passedOn = lines.filter(({ upstream }) => upstream !== '').length;
      assert.ok(passedOn >= 4);
      let heard = [];
      for (let tries = 0; tries < 200 && heard.length < passedOn; tries++) {
        await sleep(25);
        heard = site.replica.lines.filter(({ requestId }) => requestId?.startsWith(id));
      }
      assert.equal(heard.length, passedOn);
      assert.deepEqual([...new Set(heard.map(({ req }) => req.forwardedFor))], [greedy]);
    });

    it('takes a body as large as all images together may be, and refuses a larger one before it is sent', async () => {
      const over = await site.answerToHead({ 'Content-Length': MAX_BODY_BYTES + 1 }, stranger());
      assert.equal(problemOf(over, 'nginx'), '413 IMAGE_TOO_LARGE');
      // The replica would take larger images.
      const most = form(picture(MAX_BODY_BYTES - form(Buffer.alloc(0)).body.length));
      assert.equal(most.body.length, MAX_BODY_BYTES);
      assert.equal((await site.upload(stranger(), most)).status, 201);
    });

    it('refuses a chunked body once it grows too large', async () => {
      const before = await site.stored();
      const { headers, body } = form(picture(MAX_BODY_BYTES + 100_000));
      const request = http.request(`${site.url}/images`, {
        method: 'POST',
        agent: false,
        headers,
        localAddress: stranger(),
      });
      request.on('error', () => {});
      const answered = once(request, 'response');
      for (let at = 0; at < body.length; at += 65_536) request.write(body.subarray(at, at + 65_536));
      const [response] = await answered;
      const answer = await read(response);
      request.destroy();
      assert.equal(problemOf(answer, 'nginx'), '413 IMAGE_TOO_LARGE');
      await sleep(200);
      assert.equal(await site.stored(), before);
    });

    for (const [what, head] of Object.entries({
      'a header over 8 kB': `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(9000)}\r\n\r\n`,
      'more headers than 32 kB': `GET / HTTP/1.1\r\nHost: x\r\n${`X-Long: ${'a'.repeat(7000)}\r\n`.repeat(6)}\r\n`,
      'an address over 8 kB': `GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      'a line that is no request': 'hello\r\n\r\n',
      'an address that can not be decoded': 'GET /images/%zz HTTP/1.1\r\nHost: x\r\n\r\n',
      'an address that climbs out': 'GET /images/../../etc HTTP/1.1\r\nHost: x\r\n\r\n',
      'no Host': 'GET /images HTTP/1.1\r\n\r\n',
      'a length that is none': 'POST /images HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n',
      'two lengths': 'POST /images HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
      'an unknown coding': 'POST /images HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: zip\r\n\r\n',
      'a broken chunk': 'POST /images HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
      'a version that there is not': 'GET /images HTTP/3.7\r\nHost: x\r\n\r\n',
    })) {
      it(`answers ${what} with a problem`, async () => {
        assert.equal(problemOf(await say(site.balancer.port, head), 'nginx'), '400 INVALID_ARGUMENT');
      });
    }

    for (const [request, expected, allow] of [
      ['PUT /images', '405 METHOD_NOT_ALLOWED', 'GET, HEAD, POST'],
      ['DELETE /images', '405 METHOD_NOT_ALLOWED', 'GET, HEAD, POST'],
      ['OPTIONS /images', '405 METHOD_NOT_ALLOWED', 'GET, HEAD, POST'],
      ['POST /images/x', '405 METHOD_NOT_ALLOWED', 'GET, HEAD, DELETE'],
      ['PATCH /images/x', '405 METHOD_NOT_ALLOWED', 'GET, HEAD, DELETE'],
      ['DELETE /images/x/info', '405 METHOD_NOT_ALLOWED', 'GET, HEAD'],
      ['POST /', '405 METHOD_NOT_ALLOWED', 'GET, HEAD'],
      ['TRACE /health', '405 METHOD_NOT_ALLOWED', 'GET, HEAD'],
      ['GET /images/', '404 NOT_FOUND'],
      ['GET /images/x/y', '404 NOT_FOUND'],
      ['GET /.env', '404 NOT_FOUND'],
      ['GET /healthy', '404 NOT_FOUND'],
      ['GET /nginx/malformed', '404 NOT_FOUND'],
    ]) {
      it(`answers ${request} itself`, async () => {
        const [method, path] = request.split(' ');
        const id = randomUUID();
        const answer = await ask(site.url + path, {
          method,
          headers: { 'X-Request-Id': id },
          localAddress: stranger(),
        });
        assert.equal(problemOf(answer, 'nginx'), expected);
        assert.equal(answer.headers.allow, allow);
        assert.equal(answer.headers['x-request-id'], id);
        const [line] = await site.balancer.logged(({ requestId }) => requestId === id);
        assert.equal(line.upstream, '');
      });
    }

    it('shows health, metrics and status to LB_INSIDE alone, and its own health to anybody', async () => {
      for (const path of ['/health', '/health/live', '/health/ready', '/metrics', '/nginx/status']) {
        assert.equal((await site.get(path, '127.0.0.1')).status, 200, path);
        assert.equal(problemOf(await site.get(path, stranger()), 'nginx'), '404 NOT_FOUND', path);
      }
      assert.equal(String((await site.get('/nginx/health', stranger())).bytes), 'ok\n');
    });

    describe('behind a proxy that is trusted', () => {
      const PROXY = '127.0.0.1';
      let proxied;
      before(async () => {
        proxied = await Balancer.start(
          {
            ...LIMITS,
            LB_REPLICAS: site.replica.address,
            TRUSTED_PROXIES: `${PROXY},127.0.0.2`,
            LB_DENY: '127.8.0.0/16, 203.0.113.66,2001:db8::/32',
          },
          nginx,
        );
      });
      after(() => proxied.stop());
      const upload = (said, client = PROXY, id = randomUUID()) =>
        ask(`${proxied.url}/images`, {
          method: 'POST',
          ...SMALL,
          headers: { ...SMALL.headers, 'X-Forwarded-For': said, 'X-Request-Id': id },
          localAddress: client,
        });

      it('limits each client of the proxy by itself', async () => {
        const answers = await times(12, () => upload('198.51.100.1'), 4);
        assert.ok(tally(answers.map(({ status }) => status))[429] >= 4);
        assert.equal((await upload('198.51.100.2')).status, 201);
        // What the client itself put in front of its address, and the second proxy's behind it, change nothing.
        const again = await times(12, (n) => upload(`192.0.2.${n}, 198.51.100.1, 127.0.0.2`), 4);
        assert.ok(tally(again.map(({ status }) => status))[429] >= 4);
      });

      it('logs the client, not the proxy', async () => {
        const id = randomUUID();
        await upload('192.0.2.1, 198.51.100.7', PROXY, id);
        const [{ client }] = await proxied.logged(({ requestId }) => requestId === id);
        assert.equal(client, '198.51.100.7');
      });

      it('refuses whom LB_DENY names, behind the proxy too, before their body is sent', async () => {
        for (const answer of [
          await upload('198.51.100.3', '127.8.3.4'),
          await upload('203.0.113.66'),
          await upload('2001:db8::7'),
        ]) {
          assert.equal(problemOf(answer, 'nginx'), '403 FORBIDDEN');
        }
        assert.equal((await upload('203.0.113.67')).status, 201);
      });

      it('refuses all but LB_ALLOW', async () => {
        await proxied.reload({ LB_ALLOW: '198.51.100.0/24', LB_DENY: '198.51.100.200' });
        await turns(async () => (await upload('203.0.113.68')).status, 403);
        assert.equal((await upload('198.51.100.201')).status, 201);
        await turns(async () => (await upload('198.51.100.200')).status, 403);
      });

      it('takes over no list that holds something else than addresses', async () => {
        await assert.rejects(
          () => proxied.reload({ LB_DENY: '198.51.100.1; evil', LB_ALLOW: 'everybody' }),
          /LB_DENY holds "198\.51\.100\.1;".*\n.*LB_DENY holds "evil".*\n.*LB_ALLOW holds "everybody"/,
        );
      });
    });

    describe('clients that are slow', () => {
      it('cuts one whose request never comes to its end', async () => {
        const seconds = await site.dribbling;
        assert.ok(seconds > 5 && seconds < 30, `after ${seconds} s`);
      });

      it('cuts one that falls silent within its upload', async () => {
        const seconds = await site.silent;
        assert.ok(seconds > 20 && seconds < 50, `after ${seconds} s`);
      });

      it('cuts one that does not take the image that it asked for', async () => {
        const { seconds, line } = await site.unread;
        assert.ok(seconds > 20 && seconds < 50, `after ${seconds} s`);
        assert.ok(line.responseBytes < 20_000_000, `${line.responseBytes} bytes`);
      });
    });
  });
}

/** What nginx answers to bytes that no client library would send. */
async function say(port, text) {
  const socket = connect(port, '127.0.0.1');
  socket.write(text);
  const [head, body] = String(Buffer.concat(await socket.toArray())).split('\r\n\r\n');
  const [line, ...lines] = head.split('\r\n');
  const headers = lines
    .map((header) => header.split(': '))
    .map(([name, value]) => [name.toLowerCase(), value]);
  return { status: Number(line.split(' ')[1]), headers: Object.fromEntries(headers), bytes: body };
}

/** Seconds until nginx hangs up on a client that sends one header a second. */
async function dribble(port) {
  const socket = connect({ port, host: '127.0.0.1', localAddress: stranger() });
  const started = Date.now();
  socket.write('GET /openapi.json HTTP/1.1\r\nHost: naru\r\n');
  const timer = setInterval(() => socket.write('X-Slow: 1\r\n'), 1000);
  await hungUp(socket);
  clearInterval(timer);
  return (Date.now() - started) / 1000;
}

/** Seconds until nginx hangs up on a client that stops in the middle of its upload. */
async function fallSilent(port) {
  const socket = connect({ port, host: '127.0.0.1', localAddress: stranger() });
  const started = Date.now();
  socket.write('POST /images HTTP/1.1\r\nHost: naru\r\nContent-Length: 1000\r\n\r\n0123456789');
  await hungUp(socket);
  return (Date.now() - started) / 1000;
}

/** Seconds until nginx gives up on a client that doesn't read, and the line it logs. */
async function neverRead(balancer, path) {
  const socket = connect({ port: balancer.port, host: '127.0.0.1', localAddress: stranger() });
  socket.on('error', () => {});
  socket.pause();
  const id = randomUUID();
  const started = Date.now();
  socket.write(`GET ${path} HTTP/1.1\r\nHost: naru\r\nX-Request-Id: ${id}\r\n\r\n`);
  let line;
  while (!line && Date.now() - started < 60_000) {
    await sleep(500);
    line = balancer.log.find(({ requestId }) => requestId === id);
  }
  socket.destroy();
  return { seconds: (Date.now() - started) / 1000, line };
}

async function hungUp(socket) {
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => {}).resume();
  await Promise.race([closed, sleep(60_000)]);
  socket.destroy();
}

/** Workers that a reload replaced serve for a moment longer. */
function turns(action, expected) {
  return becomes(action, expected, 100);
}
