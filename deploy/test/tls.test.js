// LB_TLS=on: what clients are offered, how a certificate is made and renewed, and which mistakes stop the start.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import tls from 'node:tls';
import {
  ask,
  Balancer,
  eventually,
  form,
  freePort,
  isOpen,
  NGINX_IMAGE,
  NGINXES,
  ObjectStore,
  photograph,
  photographOf,
  problemOf,
  Replica,
  run,
  sleep,
} from './harness.js';

/** Where balancer.sh looks for them, below its folder. */
const CERTIFICATE = 'tls/fullchain.pem';
const KEY = 'tls/privkey.pem';

let store, replica, echo, pairs;

before(async () => {
  store = await ObjectStore.start();
  replica = await Replica.start('r1', store.url);
  // In a replica's place, where what it is told of the client is to be seen.
  echo = http.createServer(({ headers }, response) => response.end(JSON.stringify(headers)));
  await once(echo.listen(0, '127.0.0.1'), 'listening');
  pairs = await mkdtemp(join(tmpdir(), 'naru-pairs-'));
  for (const name of ['first', 'second', 'expired']) await makePair(name);
  const [expired, expiredKey] = ['expired.pem', 'expired.key'].map((name) => join(pairs, name));
  await run('openssl', ['x509', '-in', expired, '-signkey', expiredKey, '-days', '-1', '-out', expired]);
});
after(async () => {
  await rm(pairs, { recursive: true });
  echo?.close();
  await replica?.stop();
  await store?.stop();
});

for (const nginx of NGINXES) {
  describe(`LB_TLS=on, with the nginx of the ${nginx}`, () => {
    let dir, port, secure, balancer, ca;

    const start = () => {
      const ports = { LB_TLS_PORT: String(port), LB_TLS_PUBLIC_PORT: String(port) };
      return Balancer.start({ LB_TLS: 'on', LB_REPLICAS: replica.address, ...ports }, nginx, dir);
    };

    before(async () => {
      dir = await mkdtemp(join(tmpdir(), 'naru-tls-'));
      port = await freePort();
      secure = `https://127.0.0.1:${port}`;
      if (!(await hasOpenssl(nginx))) await install('first', dir);
      balancer = await start();
      ca = await readFile(join(dir, CERTIFICATE));
    });
    after(async () => {
      await balancer?.stop();
      await rm(dir, { recursive: true, force: true });
    });

    it('makes a certificate for trying once, and keeps it', async (context) => {
      if (!(await hasOpenssl(nginx))) return context.skip('this image has no openssl');
      assert.match(balancer.errors, /made a self-signed certificate for localhost/);
      await balancer.stop();
      balancer = await start();
      assert.doesNotMatch(balancer.errors, /self-signed/);
      assert.deepEqual(await readFile(join(dir, CERTIFICATE)), ca);
      const { fingerprint256, subject } = (await shake(port, { ca })).peer;
      assert.equal(subject.CN, 'localhost');
      assert.equal(fingerprint256, fingerprintOf(ca));
    });

    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      it(`speaks ${version}, and HTTP/2 where the client does`, async () => {
        const versions = { minVersion: version, maxVersion: version };
        const modern = await shake(port, { ca, ...versions, ALPNProtocols: ['h2', 'http/1.1'] });
        assert.deepEqual([modern.protocol, modern.alpn], [version, 'h2']);
        const plain = await shake(port, { ca, ...versions, ALPNProtocols: ['http/1.1'] });
        assert.deepEqual([plain.protocol, plain.alpn], [version, 'http/1.1']);
      });
    }

    it('refuses TLS 1.1 for its version', async () => {
      const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' };
      await assert.rejects(() => shake(port, { ca, ...old }), /alert protocol version/);
    });

    it('has only ciphers with forward secrecy in TLS 1.2', async () => {
      const weak = {
        maxVersion: 'TLSv1.2',
        ciphers: 'ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:AES128-SHA',
      };
      await assert.rejects(() => shake(port, { ca, ...weak }), /handshake failure/);
    });

    it('takes a session up again, by its id and not by a ticket', async () => {
      const versions = { ca, maxVersion: 'TLSv1.2' };
      // OpenSSL keeps a session only after it has sent its last word of the handshake, which the client may be ahead of.
      await eventually(async () => {
        const first = await shake(port, versions);
        assert.equal(first.ticket, undefined);
        return (await shake(port, { ...versions, session: first.session })).reused;
      });
    });

    for (const [size, image] of [
      ['900 kB', photograph],
      ['6 MB', () => photographOf(6_000_000)],
    ]) {
      it(`takes ${size} over HTTP/2 and gives them back byte for byte`, async () => {
        const bytes = await image();
        const { headers, body } = form(bytes);
        const client = http2.connect(secure, { ca, servername: 'localhost' });
        try {
          const taken = await over(client, { ':method': 'POST', ':path': '/images', ...headers }, body);
          assert.equal(taken.status, 201, String(taken.bytes));
          const [{ url }] = JSON.parse(taken.bytes).images;
          assert.ok((await over(client, { ':path': url })).bytes.equals(bytes));
          const missing = await over(client, { ':path': '/nothing' });
          assert.equal(problemOf(missing, 'nginx'), '404 NOT_FOUND');
        } finally {
          client.close();
        }
      });

      it(`takes ${size} over HTTP/1.1 and gives them back byte for byte`, async () => {
        const bytes = await image();
        const taken = await ask(`${secure}/images`, {
          method: 'POST',
          ...form(bytes),
          ca,
          servername: 'localhost',
        });
        assert.equal(taken.status, 201);
        const [{ url }] = JSON.parse(taken.bytes).images;
        assert.ok((await ask(secure + url, { ca, servername: 'localhost' })).bytes.equals(bytes));
      });
    }

    for (const method of ['GET', 'POST', 'DELETE']) {
      it(`sends a ${method} on the plain port to https, as it is`, async () => {
        const { status, headers } = await ask(`${balancer.url}/images/a%20b?limit=2&x=%2F`, { method });
        assert.equal(status, 308);
        assert.equal(headers.location, `https://127.0.0.1:${port}/images/a%20b?limit=2&x=%2F`);
      });
    }

    it('sends plain HTTP on the TLS port to https', async () => {
      const { status, headers } = await ask(`http://127.0.0.1:${port}/images?limit=2`);
      assert.equal(status, 308);
      assert.equal(headers.location, `${secure}/images?limit=2`);
    });

    it('serves what proves its name to a certificate authority on the plain port, and nothing beside it', async () => {
      const challenges = join(dir, 'acme/.well-known/acme-challenge');
      await mkdir(challenges, { recursive: true });
      await writeFile(join(challenges, 'a-Token_1'), 'a-Token_1.thumbprint');
      await writeFile(join(dir, 'acme/secret'), 'secret');
      const { status, bytes } = await ask(`${balancer.url}/.well-known/acme-challenge/a-Token_1`);
      assert.deepEqual([status, String(bytes)], [200, 'a-Token_1.thumbprint']);
      const missing = await ask(`${balancer.url}/.well-known/acme-challenge/other`);
      assert.equal(problemOf(missing, 'nginx'), '404 NOT_FOUND');
      for (const path of [
        '../../secret',
        '..%2f..%2fsecret',
        '%2e%2e/%2e%2e/secret',
        '..%5c..%5csecret',
        '',
      ]) {
        const answer = await ask(`${balancer.url}/.well-known/acme-challenge/${path}`);
        assert.ok([308, 400, 404].includes(answer.status), `${path}: ${answer.status}`);
        assert.ok(!String(answer.bytes).includes('secret'));
      }
      assert.equal((await ask(`${balancer.url}/nginx/health`)).status, 200);
    });

    it('takes over a renewed certificate by itself, without a failed request; half a renewal changes nothing', async () => {
      let isOver = false;
      const failed = [];
      let asked = 0;
      const load = Array.from({ length: 4 }, async () => {
        while (!isOver) {
          const options = { rejectUnauthorized: false };
          const status = await ask(`${secure}/openapi.json`, options).then(
            (answer) => answer.status,
            (error) => error.message,
          );
          if (status !== 200) failed.push(status);
          asked++;
          await sleep(20);
        }
      });
      const before = fingerprintOf(ca);
      const served = async () => (await shake(port, { rejectUnauthorized: false })).peer.fingerprint256;

      try {
        await replace(join(pairs, 'second.pem'), join(dir, CERTIFICATE));
        // Longer than it takes to be noticed.
        await sleep(4500);
        assert.equal(await served(), before);

        await replace(join(pairs, 'second.key'), join(dir, KEY));
        const second = fingerprintOf(await readFile(join(pairs, 'second.pem')));
        const started = Date.now();
        while ((await served()) !== second) {
          assert.ok(Date.now() - started < 20_000, 'the renewed certificate is not served');
          await sleep(100);
        }
        // The old workers finish what they have.
        await sleep(300);
      } finally {
        isOver = true;
        await Promise.all(load);
      }
      assert.deepEqual(failed, []);
      assert.ok(asked > 50, `${asked} requests`);
    });

    it('tells the replica that the client came by https', async () => {
      await balancer.reload({ LB_REPLICAS: `127.0.0.1:${echo.address().port}` });
      /** The headers that came through, once no old worker, which asks the replica of before, serves any more. */
      const told = (get) =>
        eventually(async () => {
          const headers = JSON.parse((await get()).bytes);
          return headers['x-forwarded-proto'] && headers;
        });
      const overHttp1 = await told(() =>
        ask(`${secure}/openapi.json`, {
          rejectUnauthorized: false,
          headers: { 'X-Forwarded-Proto': 'http' },
        }),
      );
      assert.equal(overHttp1['x-forwarded-proto'], 'https');
      const overHttp2 = await told(async () => {
        const client = http2.connect(secure, { rejectUnauthorized: false });
        const answer = await over(client, { ':path': '/openapi.json' });
        client.close();
        return answer;
      });
      assert.equal(overHttp2['x-forwarded-proto'], 'https');
      assert.equal(overHttp2.host, `127.0.0.1:${port}`);
    });

    describe('mistakes', () => {
      let at, settings;
      beforeEach(async () => {
        at = await mkdtemp(join(tmpdir(), 'naru-tls-'));
        settings = {
          LB_TLS: 'on',
          LB_PORT: String(await freePort()),
          LB_TLS_PORT: String(await freePort()),
          LB_REPLICAS: replica.address,
        };
        await install('first', at);
      });
      afterEach(() => rm(at, { recursive: true, force: true }));

      const fails = async (expected) => {
        await assert.rejects(
          Balancer.start(settings, nginx, at).then((running) => running.stop()),
          (error) => {
            assert.match(error.message, expected);
            assert.equal(error.message.match(/can't start/g).length, 1);
            assert.equal(error.code, 1);
            return true;
          },
        );
        for (const port of [settings.LB_PORT, settings.LB_TLS_PORT]) assert.equal(await isOpen(port), false);
      };

      it('names a certificate and a key that are no pair', async () => {
        await replace(join(pairs, 'second.key'), join(at, KEY));
        await fails(
          /nginx refuses the certificate LB_TLS_CERTIFICATE \(.*\) with the key LB_TLS_KEY \(.*\); expected/,
        );
      });

      it('names a certificate of one kind with a key of another, which nginx itself takes for a pair', async (context) => {
        if (!(await hasOpenssl(nginx))) return context.skip('this image has no openssl');
        await run('openssl', ['genrsa', '-out', join(at, KEY), '2048']);
        await fails(/nginx refuses the certificate LB_TLS_CERTIFICATE/);
      });

      it('names a key that is missing', async () => {
        await rm(join(at, KEY));
        await fails(
          /LB_TLS_KEY holds ".*privkey\.pem", which can't be read; expected both files, or neither/,
        );
      });

      it('names a certificate that is missing', async () => {
        await rm(join(at, CERTIFICATE));
        await fails(/LB_TLS_CERTIFICATE holds ".*fullchain\.pem", which can't be read/);
      });

      it('names a file that is no certificate', async () => {
        await writeFile(join(at, CERTIFICATE), 'not a certificate\n');
        await fails(/nginx refuses the certificate LB_TLS_CERTIFICATE/);
      });

      it('names a file that is no key', async () => {
        await writeFile(join(at, KEY), '');
        await fails(/nginx refuses the certificate LB_TLS_CERTIFICATE/);
      });

      it('leaves a running nginx as it is', async () => {
        const running = await Balancer.start(settings, nginx, at);
        try {
          await replace(join(pairs, 'second.key'), join(at, KEY));
          await assert.rejects(
            running.reload({ LB_KEEPALIVE: '7' }),
            /can't reload:\n {2}nginx refuses the certificate/,
          );
          const { peer } = await shake(settings.LB_TLS_PORT, { rejectUnauthorized: false });
          assert.equal(peer.fingerprint256, fingerprintOf(await readFile(join(at, CERTIFICATE))));
        } finally {
          await running.stop();
        }
      });

      it('needs openssl only where there is no certificate', { skip: nginx !== 'machine' }, async () => {
        settings.PATH = join(at, 'bin');
        await mkdir(settings.PATH);
        for (const folder of process.env.PATH.split(':')) {
          for (const name of await readdir(folder).catch(() => [])) {
            if (name === 'openssl') continue;
            await symlink(join(folder, name), join(settings.PATH, name)).catch(() => {});
          }
        }
        await (await Balancer.start(settings, nginx, at)).stop();
        await rm(join(at, 'tls'), { recursive: true });
        await fails(/no certificate at LB_TLS_CERTIFICATE \(.*\), and no command openssl to make one/);
      });

      it('is no expired certificate, but that is said', async (context) => {
        if (!(await hasOpenssl(nginx))) return context.skip('this image has no openssl');
        await install('expired', at);
        const running = await Balancer.start(settings, nginx, at);
        await running.stop();
        assert.match(running.errors, /LB_TLS_CERTIFICATE \(.*\) has expired/);
      });
    });
  });
}

/** A certificate for localhost and its key, in `pairs`. */
async function makePair(name) {
  await run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
    ...['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:localhost'],
    ...['-keyout', join(pairs, `${name}.key`), '-out', join(pairs, `${name}.pem`)],
  ]);
}

/** Puts a pair where balancer.sh looks for it. */
async function install(name, dir) {
  await mkdir(join(dir, 'tls'), { recursive: true });
  await replace(join(pairs, `${name}.pem`), join(dir, CERTIFICATE));
  await replace(join(pairs, `${name}.key`), join(dir, KEY));
}

/** As certbot does it: at no moment is there half a file. */
async function replace(from, to) {
  await copyFile(from, `${to}.new`);
  await rename(`${to}.new`, to);
}

async function hasOpenssl(nginx) {
  if (nginx === 'machine') return true;
  const { stdout } = await run('docker', [
    ...['run', '--rm', '--entrypoint', 'sh', NGINX_IMAGE],
    ...['-c', 'command -v openssl || echo none'],
  ]);
  return stdout !== 'none\n';
}

/** What a handshake comes to. */
async function shake(port, options) {
  const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ...options });
  try {
    await once(socket, 'secureConnect');
    return {
      protocol: socket.getProtocol(),
      alpn: socket.alpnProtocol,
      peer: socket.getPeerCertificate(),
      session: socket.getSession(),
      ticket: socket.getTLSTicket(),
      reused: socket.isSessionReused(),
    };
  } finally {
    socket.destroy();
  }
}

/** A request over a connection of node:http2. */
async function over(client, { ':path': path, ...headers }, body) {
  const stream = client.request({ ':path': path, ...headers });
  stream.end(body);
  const [answer] = await once(stream, 'response');
  return { status: answer[':status'], headers: answer, bytes: Buffer.concat(await stream.toArray()) };
}

function fingerprintOf(pem) {
  return new X509Certificate(pem).fingerprint256;
}
