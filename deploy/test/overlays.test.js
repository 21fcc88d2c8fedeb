// Lays each file of deploy/compose over the plain compose file and holds it to what its head promises, from outside.
// Needs Docker:
//
//   node --test deploy/test/overlays.test.js
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect } from 'node:tls';
import { ComposeProject } from './compose.js';
import { freePort, photograph, run, sha256, sleep, tally, times, upload } from './harness.js';

const PROJECT = `${process.env.COMPOSE_PROJECT_NAME ?? `naru-test-${process.pid}`}-overlays`;
const MINIO_IMAGE = process.env.MINIO_IMAGE ?? 'quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z';
const MiB = 1024 * 1024;

const HTTP_PORT = String(await freePort());
const HTTPS_PORT = String(await freePort());
const BASE_URL = `http://127.0.0.1:${HTTP_PORT}`;
const tmp = await mkdtemp(join(tmpdir(), 'naru-overlays-'));

/** The plain file with overlays: names of files in deploy/compose, or paths. */
function laidOver(overlays, settings = {}) {
  const files = overlays.map((name) => (name.includes('/') ? name : `deploy/compose/${name}.yml`));
  return new ComposeProject(PROJECT, { HTTP_PORT, HTTPS_PORT, ...settings }, files);
}

/** Brings a project up for the tests of one suite. */
function whileUp(project, replicas = 1) {
  before(() => up(project, replicas));
  after(() => project.compose('down', '--volumes', '--remove-orphans', '--timeout', '5'));
}

function up(project, replicas = 1) {
  return project.compose('up', '--detach', '--no-build', '--wait', '--scale', `api=${replicas}`);
}

/** What a command says in the service's container. */
async function inside(project, service, ...words) {
  const { stdout } = await project.compose('exec', '--no-TTY', service, ...words);
  return stdout;
}

// One image for all of them.
before(() => laidOver([]).compose('build', 'api', 'watch'));
after(async () => {
  const down = ['down', '--volumes', '--remove-orphans', '--rmi', 'local', '--timeout', '5'];
  await laidOver(['tls', 'cache']).compose('--profile', 'acme', ...down);
  await rm(tmp, { recursive: true });
});

describe('every overlay', () => {
  const PLAIN = ['api', 'minio', 'nginx', 'watch'];
  const ONE = [`nginx ${HTTP_PORT}:8080`];
  const TWO = [...ONE, `nginx ${HTTPS_PORT}:8443`];
  const EXPECTED = [
    [['tls'], PLAIN, TWO],
    [['l4'], PLAIN, ONE],
    [['cache'], PLAIN, ONE],
    [['limits'], PLAIN, ONE],
    [['small-vm'], PLAIN, ONE],
    [['external-store'], ['api', 'nginx', 'watch'], ONE],
    [['l4', 'small-vm', 'external-store'], ['api', 'nginx', 'watch'], ONE],
    [['tls', 'limits', 'cache', 'small-vm', 'external-store'], ['api', 'nginx', 'watch'], TWO],
  ];
  for (const [overlays, services, ports] of EXPECTED) {
    it(`${overlays.join(' + ')} is valid, and starts and publishes just what it should`, async () => {
      const config = await configOf(laidOver(overlays, { S3_BUCKET: 'some-bucket' }));
      assert.deepEqual(Object.keys(config.services).sort(), services);
      const published = Object.entries(config.services).flatMap(([name, { ports = [] }]) =>
        ports.map(({ published, target }) => `${name} ${published}:${target}`),
      );
      assert.deepEqual(published, ports);
      assert.equal(config.services.nginx.read_only, true);
    });
  }

  it('passes on every variable of the balancer that it switches on', async () => {
    const settings = {
      LB_ALGORITHM: 'hash',
      LB_DENY: '192.0.2.1',
      LB_ALLOW: '192.0.2.0/24',
      LB_TLS_NAME: 'images.example.com',
      LB_CACHE_SIZE: '2g',
      LB_CACHE_TIME: '7s',
      LB_CACHE_VERSION: '9',
      LB_UPLOADS_PER_SECOND: '3',
      LB_UPLOADS_BURST: '4',
      LB_READS_PER_SECOND: '5',
      LB_READS_BURST: '6',
      LB_CONNECTIONS: '7',
      LB_INSIDE: '10.1.2.3',
    };
    const { services } = await configOf(laidOver(['tls', 'cache', 'limits'], settings));
    for (const [name, value] of Object.entries(settings)) {
      assert.equal(services.nginx.environment[name], value, name);
    }
    assert.equal(services.api.environment.PUBLIC_URL, `https://images.example.com:${HTTPS_PORT}`);
  });

  async function configOf(project) {
    const { stdout } = await project.run('docker', ['compose', 'config', '--format', 'json']);
    return JSON.parse(stdout);
  }
});

describe('LB_ALGORITHM', () => {
  const project = laidOver([], { LB_ALGORITHM: 'least_conn' });
  whileUp(project);

  it('reaches nginx', async () => {
    assert.match(
      await inside(project, 'nginx', 'nginx', '-T', '-c', '/run/naru/naru-conf/nginx.conf'),
      /^ +least_conn;/m,
    );
  });

  it('fails `up --wait` when it is wrong, with one message that says what is allowed', async () => {
    const wrong = laidOver([], { LB_ALGORITHM: 'least_time' });
    await assert.rejects(
      wrong.run('docker', ['compose', 'up', '--detach', '--no-build', '--wait']),
      /nginx-1 exited \(1\)/,
    );
    const { stdout: log } = await wrong.run('docker', ['compose', 'logs', '--no-log-prefix', 'nginx']);
    assert.match(
      log,
      /^Naru's nginx can't start:\n {2}LB_ALGORITHM holds "least_time"; expected round_robin, .*\ndeploy\/README.md .*\n$/,
    );
  });
});

describe('tls.yml', () => {
  // In place of certbot: tells how it was called, and calls the hook as certbot does when it has a certificate.
  const certbot = join(tmp, 'certbot');
  const fake = join(tmp, 'certbot.yml');
  const project = laidOver(['tls', fake], { LB_TLS_NAME: 'localhost' });
  before(async () => {
    await writeFile(
      certbot,
      `#!/bin/sh
echo "certbot $*"
while [ $# -gt 0 ]; do
  if [ "$1" = --webroot-path ]; then mkdir -p "$2/.well-known/acme-challenge"; echo proof >"$2/.well-known/acme-challenge/token"; fi
  if [ "$1" = --deploy-hook ]; then RENEWED_LINEAGE=/lineage sh -c "$2"; fi
  shift
done
`,
    );
    await chmod(certbot, 0o755);
    execFileSync('openssl', [
      ...[
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-days',
        '7',
      ],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
      ...['-keyout', join(tmp, 'privkey.pem'), '-out', join(tmp, 'fullchain.pem')],
    ]);
    // The hook is to keep the key to itself however it finds it.
    await chmod(join(tmp, 'privkey.pem'), 0o644);
    await writeFile(
      fake,
      `services: { certbot: { image: 'nginx:1.30', volumes: ['${certbot}:/usr/bin/certbot:ro', '${tmp}:/lineage:ro'] } }\n`,
    );
  });
  whileUp(project);

  it('takes an upload over HTTP/2 and reads it back, with a certificate that has the name', async () => {
    const image = await photograph();
    const client = http2.connect(`https://localhost:${HTTPS_PORT}`, { ca: await certificate() });
    try {
      const form = new FormData();
      form.append('images', new Blob([image]), 'photograph.jpg');
      const request = new Response(form);
      const headers = {
        ':method': 'POST',
        ':path': '/images',
        'content-type': request.headers.get('content-type'),
      };
      const created = await ask(client, headers, Buffer.from(await request.arrayBuffer()));
      assert.equal(created.status, 201, created.body.toString());
      const { url } = JSON.parse(created.body).images[0];
      assert.match(url, new RegExp(`^https://localhost:${HTTPS_PORT}/images/`));
      const read = await ask(client, { ':path': new URL(url).pathname });
      assert.equal(sha256(read.body), sha256(image));
      assert.equal(client.alpnProtocol, 'h2');
    } finally {
      client.close();
    }
  });

  it('sends the plain port there, with the method kept', async () => {
    const answer = await fetch(`http://localhost:${HTTP_PORT}/images?limit=2`, {
      method: 'POST',
      redirect: 'manual',
    });
    assert.equal(answer.status, 308);
    assert.equal(answer.headers.get('location'), `https://localhost:${HTTPS_PORT}/images?limit=2`);
  });

  it("has nginx's figures on the plain port for those inside, who have no name to check", async () => {
    assert.match(await inside(project, 'nginx', 'curl', '-fsS', 'http://nginx:8080/nginx/status'), /^Active/);
  });

  it('keeps its certificate when everything is made anew', async () => {
    const before = await certificate();
    await project.compose('down', '--timeout', '5');
    await up(project);
    assert.equal(await certificate(), before);
  });

  it('has certbot prove the name through the plain port, and serves the new certificate within seconds', async () => {
    const { stdout } = await project.compose('run', '--rm', '--no-deps', 'certbot', '--email', 'a@b.example');
    assert.match(stdout, /^certbot certonly --webroot .*--domain localhost .*--email a@b\.example$/m);
    const proof = await fetch(`${BASE_URL}/.well-known/acme-challenge/token`);
    assert.deepEqual([proof.status, await proof.text()], [200, 'proof\n']);

    const expected = execFileSync('openssl', ['x509', '-in', join(tmp, 'fullchain.pem'), '-outform', 'DER']);
    for (let tries = 0; tries < 40 && sha256(await served()) !== sha256(expected); tries++) await sleep(250);
    assert.equal(sha256(await served()), sha256(expected));
    assert.match(await inside(project, 'nginx', 'ls', '-l', '/certificates/privkey.pem'), /^-rw-------/);
  });

  it('has certbot look for what is due as long as it is up, and end at once when it is told to', async () => {
    await project.compose('--profile', 'acme', 'up', '--detach', '--no-deps', 'certbot');
    await sleep(1_000);
    const [{ State }] = await project.containers('certbot');
    assert.equal(State.Status, 'running');
    const { stdout } = await project.compose('logs', '--no-log-prefix', 'certbot');
    assert.equal(stdout, 'certbot renew\n');
    const started = Date.now();
    await project.compose('--profile', 'acme', 'stop', 'certbot');
    assert.ok(Date.now() - started < 5_000);
  });

  function certificate() {
    return inside(project, 'nginx', 'cat', '/certificates/fullchain.pem');
  }

  /** The certificate, DER, that a client is shown. */
  async function served() {
    const socket = connect({
      port: Number(HTTPS_PORT),
      host: '127.0.0.1',
      servername: 'localhost',
      rejectUnauthorized: false,
    });
    await once(socket, 'secureConnect');
    const { raw } = socket.getPeerCertificate();
    socket.destroy();
    return raw;
  }

  async function ask(client, headers, body) {
    const stream = client.request(headers);
    stream.end(body);
    const [answer] = await once(stream, 'response');
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return { status: answer[':status'], body: Buffer.concat(chunks) };
  }
});

describe('cache.yml and limits.yml together', () => {
  const limits = { LB_UPLOADS_PER_SECOND: '1', LB_UPLOADS_BURST: '3' };
  const project = laidOver(['cache', 'limits'], limits);
  whileUp(project);

  let path;
  it('reads an image from the copy, until the version changes', async () => {
    const image = await photograph();
    const created = await upload(BASE_URL, image);
    assert.equal(created.status, 201);
    path = `/images/${created.image.id}`;
    assert.deepEqual(await read(), ['MISS', sha256(image)]);
    assert.deepEqual(await read(), ['HIT', sha256(image)]);

    const next = laidOver(['cache', 'limits'], { ...limits, LB_CACHE_VERSION: '2' });
    await up(next);
    assert.deepEqual(await read(), ['MISS', sha256(image)]);
  });

  it('keeps the copies when nginx is made anew', async () => {
    await up(project);
    assert.equal((await read())[0], 'HIT');
  });

  it('refuses what is over the limit, as a problem', async () => {
    const image = await photograph();
    const answers = await times(12, () => upload(BASE_URL, image), 12);
    const counts = tally(answers.map(({ status, problem }) => `${status} ${problem.code ?? ''}`.trim()));
    assert.deepEqual(Object.keys(counts).sort(), ['201', '429 RATE_LIMITED']);
    assert.ok(counts['201'] >= 4 && counts['201'] <= 7, `${counts['201']} were let through`);
  });

  it('shows metrics and health to nobody outside, and nginx is healthy all the same', async () => {
    for (const path of ['/metrics', '/health/ready', '/nginx/status']) {
      assert.equal((await fetch(BASE_URL + path)).status, 404, path);
    }
    const metrics = await inside(project, 'nginx', 'curl', '-fsS', 'http://127.0.0.1:8080/metrics');
    assert.match(metrics, /^naru_/m);
    const [{ State }] = await project.containers('nginx');
    assert.equal(State.Health.Status, 'healthy');
  });

  async function read() {
    const answer = await fetch(BASE_URL + path);
    return [answer.headers.get('x-cache'), sha256(Buffer.from(await answer.arrayBuffer()))];
  }
});

describe('l4.yml', () => {
  const REPLICAS = 3;
  const project = laidOver(['l4']);
  whileUp(project, REPLICAS);

  it('spreads connections over the replicas', async () => {
    const replicas = new Set();
    for (let sent = 0; sent < 12; sent++) replicas.add((await live()).headers['x-served-by']);
    assert.equal(replicas.size, REPLICAS);
  });

  it('takes an upload and reads it back', async () => {
    const image = await photograph();
    const created = await upload(BASE_URL, image);
    assert.equal(created.status, 201);
    const answer = await fetch(`${BASE_URL}/images/${created.image.id}`);
    assert.equal(sha256(Buffer.from(await answer.arrayBuffer())), sha256(image));
  });

  it("has the client's address in the replica's log, not nginx's", async () => {
    const { headers } = await live('/images/nothing-here');
    const [{ NetworkSettings }] = await project.containers('nginx');
    const [network] = Object.values(NetworkSettings.Networks);
    const { stdout } = await project.compose('logs', '--no-log-prefix', 'api');
    const line = stdout.split('\n').find((line) => line.includes(headers['x-request-id']));
    // A request of this machine reaches the container from the network's gateway.
    assert.equal(JSON.parse(line).req.remoteAddress, network.Gateway);
    assert.notEqual(network.Gateway, network.IPAddress);
  });

  it('is refused beside an overlay that needs to see requests', async () => {
    const both = laidOver(['l4', 'cache']);
    await assert.rejects(both.run('docker', ['compose', 'run', '--rm', '--no-deps', 'nginx']), ({ stderr }) =>
      /LB_CACHE needs LB_LAYER=l7/.test(stderr),
    );
  });

  /** GET on a connection of its own. */
  async function live(path = '/health/live') {
    const request = http.get(BASE_URL + path, { agent: false });
    const [answer] = await once(request, 'response');
    answer.resume();
    return answer;
  }
});

describe('small-vm.yml', () => {
  const project = laidOver(['small-vm']);
  whileUp(project);

  it("bounds the replica's CPU and memory", async () => {
    const [{ HostConfig }] = await project.containers('api');
    assert.deepEqual([HostConfig.NanoCpus, HostConfig.Memory], [0.5e9, 512 * MiB]);
    const other = await laidOver(['small-vm'], { API_CPUS: '2', API_MEMORY: '1g' }).compose(
      'config',
      '--format',
      'json',
    );
    const { limits } = JSON.parse(other.stdout).services.api.deploy.resources;
    assert.deepEqual([Number(limits.cpus), Number(limits.memory)], [2, 1024 * MiB]);
  });

  it('lives through 16 images of 20 MiB at once', { timeout: 120_000 }, async () => {
    const image = Buffer.alloc(20 * MiB);
    (await photograph()).copy(image);
    const [before] = await project.containers('api');
    const answers = await times(16, () => upload(BASE_URL, image), 16);
    assert.deepEqual(tally(answers.map(({ status }) => status)), { 201: 16 });
    const [{ State, RestartCount }] = await project.containers('api');
    assert.deepEqual([State.OOMKilled, RestartCount, State.StartedAt], [false, 0, before.State.StartedAt]);
    const heapBytes = await inside(project, 'api', 'node', '-p', 'v8.getHeapStatistics().heap_size_limit');
    assert.ok(heapBytes < 160 * MiB, 'the heap leaves room for the uploads');
  });
});

describe('external-store.yml', () => {
  const BUCKET = 'of-my-own';
  const KEYS = { S3_ACCESS_KEY_ID: 'outside', S3_SECRET_ACCESS_KEY: 'outside-secret' };
  const store = `${PROJECT}-outside`;
  const settings = { S3_BUCKET: BUCKET };
  const project = laidOver(['external-store'], settings);
  before(async () => {
    const port = await freePort();
    // No part of the project; on all of this machine's addresses, of which host.docker.internal is one.
    await run('docker', [
      ...['run', '--detach', '--rm', '--name', store, '--network', 'host', '--entrypoint', 'sh'],
      ...['--env', `MINIO_ROOT_USER=${KEYS.S3_ACCESS_KEY_ID}`],
      ...['--env', `MINIO_ROOT_PASSWORD=${KEYS.S3_SECRET_ACCESS_KEY}`],
      ...[
        MINIO_IMAGE,
        '-c',
        `mkdir -p /tmp/data/${BUCKET} && exec minio server /tmp/data --address :${port}`,
      ],
    ]);
    project.env.S3_ENDPOINT = `http://host.docker.internal:${port}`;
    for (const [name, key] of Object.entries(KEYS)) {
      project.env[`${name}_FILE`] = join(tmp, name);
      await writeFile(join(tmp, name), `${key}\n`, { mode: 0o444 });
    }
  });
  after(() => run('docker', ['rm', '--force', store]));
  whileUp(project);

  it('starts no MinIO', async () => {
    const names = (await project.containers()).map(
      ({ Config }) => Config.Labels['com.docker.compose.service'],
    );
    assert.deepEqual(names.sort(), ['api', 'nginx', 'watch']);
    const { stdout } = await run('docker', ['volume', 'ls', '--quiet', '--filter', `name=${PROJECT}_images`]);
    assert.equal(stdout, '');
  });

  it('keeps images in the store that it is given', async () => {
    const image = await photograph();
    const created = await upload(BASE_URL, image);
    assert.equal(created.status, 201, JSON.stringify(created.problem));
    const answer = await fetch(`${BASE_URL}/images/${created.image.id}`);
    assert.equal(sha256(Buffer.from(await answer.arrayBuffer())), sha256(image));
    const { stdout } = await run('docker', ['exec', store, 'ls', `/tmp/data/${BUCKET}/images`]);
    assert.equal(stdout.trim(), created.image.id);
  });

  it('takes the keys from files, so that Docker does not tell them', async () => {
    const [{ Config }] = await project.containers('api');
    assert.doesNotMatch(JSON.stringify(Config), /outside-secret/);
  });

  it('takes them from variables as well', async () => {
    const given = { S3_ENDPOINT: '', S3_REGION: 'ap-northeast-2', ...settings, ...KEYS };
    const { stdout } = await laidOver(['external-store'], given).compose('config', '--format', 'json');
    const { environment } = JSON.parse(stdout).services.api;
    const expected = {
      ...given,
      S3_CREATE_BUCKET: 'false',
      S3_ACCESS_KEY_ID_FILE: '',
      S3_SECRET_ACCESS_KEY_FILE: '',
    };
    for (const [name, value] of Object.entries(expected)) assert.equal(environment[name], value, name);
  });

  it('asks for the bucket by name', async () => {
    const without = laidOver(['external-store'], { S3_BUCKET: '' });
    await assert.rejects(without.run('docker', ['compose', 'config', '--quiet']), ({ stderr }) =>
      /S3_BUCKET.*: names the bucket; set it in the shell or in \.env/.test(stderr),
    );
  });
});
