// Brings up the plain compose file with three replicas and holds it to what it promises, from outside.
// Needs Docker:
//
//   node --test deploy/test/
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ComposeProject } from './compose.js';
import { freePort, read, ROOT, sha256, upload as uploadTo } from './harness.js';

const K6_IMAGE = process.env.K6_IMAGE ?? 'grafana/k6:2.1.0';
const PROJECT = process.env.COMPOSE_PROJECT_NAME ?? `naru-test-${process.pid}`;
const REPLICAS = 3;
const PHOTOGRAPHS = ['loadtest/images/hubble-900kB.jpg', 'deploy/test/images/고양이.png'];
const MiB = 1024 * 1024;

const HTTP_PORT = String(await freePort());
const BASE_URL = `http://127.0.0.1:${HTTP_PORT}`;
const project = new ComposeProject(PROJECT, { HTTP_PORT });
const upload = (image) => uploadTo(BASE_URL, image);

describe('docker compose up --scale api=3', () => {
  before(() => project.compose('up', '--detach', '--build', '--wait', '--scale', `api=${REPLICAS}`));
  after(() => project.compose('down', '--volumes', '--remove-orphans', '--rmi', 'local', '--timeout', '5'));

  it('is healthy, nginx as well as the replicas behind it', async () => {
    for (const path of ['/nginx/health', '/health', '/health/live', '/health/ready']) {
      assert.equal((await fetch(BASE_URL + path)).status, 200, path);
    }
  });

  it('publishes no port but that of nginx', async () => {
    assert.deepEqual(await project.published(), [`nginx ${HTTP_PORT}`]);
  });

  it('runs the replicas as a plain user who can write nowhere', async () => {
    const attempt = `
      const attempt = (path) => { try { fs.writeFileSync(path, ''); return 'written'; } catch ({ code }) { return code; } };
      console.log(JSON.stringify([process.getuid() > 0, ['/probe', '/app/probe', '/tmp/probe'].map(attempt)]));`;
    for (const { Id, HostConfig } of await project.containers('api')) {
      assert.equal(HostConfig.ReadonlyRootfs, true);
      const { stdout } = await project.run('docker', ['exec', Id, 'node', '-e', attempt]);
      assert.deepEqual(JSON.parse(stdout), [true, ['EROFS', 'EROFS', 'EROFS']]);
    }
  });

  it('spreads uploads over the replicas', async () => {
    const photograph = await readFile(join(ROOT, PHOTOGRAPHS[0]));
    const shares = new Map();
    for (let sent = 0; sent < 30; sent++) {
      const { status, servedBy } = await upload(photograph);
      assert.equal(status, 201);
      shares.set(servedBy, (shares.get(servedBy) ?? 0) + 1);
    }
    assert.equal(shares.size, REPLICAS);
    for (const [replica, count] of shares) assert.ok(count >= 5, `${replica} got ${count} of 30`);
  });

  for (const path of PHOTOGRAPHS) {
    it(`reads ${basename(path)} back byte for byte through every replica, whichever took it`, async () => {
      const photograph = await readFile(join(ROOT, path));
      const uploaders = new Set();
      for (let sent = 0; sent < 20 && uploaders.size < REPLICAS; sent++) {
        const { status, image, servedBy } = await upload(photograph);
        assert.equal(status, 201);
        assert.equal(image.bytes, photograph.length);
        uploaders.add(servedBy);
        assert.equal(image.url, `http://localhost:${HTTP_PORT}/images/${image.id}`);
        const readers = new Set();
        for (let read = 0; read < 20 && readers.size < REPLICAS; read++) {
          const answer = await fetch(`${BASE_URL}/images/${image.id}`);
          assert.equal(sha256(Buffer.from(await answer.arrayBuffer())), sha256(photograph));
          readers.add(answer.headers.get('x-served-by'));
        }
        assert.equal(readers.size, REPLICAS, 'each replica read it');
      }
      assert.equal(uploaders.size, REPLICAS, 'each replica took it');
    });
  }

  it('answers an image of 21 MiB with the problem IMAGE_TOO_LARGE', async () => {
    // A whole photograph and bytes after its end, as some cameras write them: only the size is wrong.
    const image = Buffer.alloc(21 * MiB);
    (await readFile(join(ROOT, PHOTOGRAPHS[0]))).copy(image);
    const { status, headers, problem } = await upload(image);
    assert.deepEqual([status, problem.code], [413, 'IMAGE_TOO_LARGE']);
    assert.match(headers.get('content-type'), /^application\/problem\+json/);
    assert.equal(problem.requestId, headers.get('x-request-id'));
  });

  it('refuses a request that no limit allows at nginx, in the same words, before its body is sent', async () => {
    const request = http.request(`${BASE_URL}/images`, {
      method: 'POST',
      headers: {
        'Content-Type': 'multipart/form-data; boundary=x',
        'Content-Length': 10 * 20 * MiB + 2 * MiB,
      },
    });
    request.flushHeaders();
    const [answer] = await once(request, 'response');
    const problem = JSON.parse((await read(answer)).bytes);
    request.destroy();
    assert.deepEqual([answer.statusCode, problem.code, problem.status], [413, 'IMAGE_TOO_LARGE', 413]);
    assert.equal(answer.headers['content-type'], 'application/problem+json');
    assert.equal(answer.headers['x-request-id'], problem.requestId);
  });

  it('passes a sane request id on to the replica and replaces any other', async () => {
    const sane = `test.${randomUUID()}`;
    const idFor = async (id) => {
      const answer = await fetch(`${BASE_URL}/images/nothing-here`, { headers: { 'X-Request-Id': id } });
      return [answer.headers.get('x-request-id'), (await answer.json()).requestId];
    };
    assert.deepEqual(await idFor(sane), [sane, sane]);
    const [header, body] = await idFor('"},{"forged":"');
    assert.match(header, /^[0-9a-f]{32}$/);
    assert.equal(body, header);
  });

  it('holds the thresholds of loadtest/one-vs-many.js', { timeout: 120_000 }, async () => {
    const settings = {
      BASE_URL: 'http://nginx:8080',
      REPLICAS,
      VUS_PER_REPLICA: 4,
      WARM_UP: '2s',
      DURATION: '8s',
    };
    const words = Object.entries(settings).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
    const volume = `${join(ROOT, 'loadtest')}:/loadtest:ro`;
    const network = `${PROJECT}_default`;
    const { stdout: output } = await project
      .run('docker', [
        ...['run', '--rm', '--network', network, '--volume', volume, ...words],
        ...[K6_IMAGE, 'run', '--quiet', '/loadtest/one-vs-many.js'],
      ])
      .catch((error) => assert.fail(`${error.stdout}\n${error.stderr}`));
    console.log(output);
    assert.equal(output.match(/^ {2}\w{12} +\d+ +\d/gm)?.length, REPLICAS, 'one row per replica');
  });

  it('acknowledges every upload while a replica is killed', async () => {
    const photograph = await readFile(join(ROOT, PHOTOGRAPHS[0]));
    const [victim] = await project.containers('api');
    const answers = [];
    let left = 120;
    const client = async () => {
      while (left-- > 0) answers.push((await upload(photograph)).status);
    };
    const clients = Promise.all([client(), client(), client(), client()]);
    while (answers.length < 30) await new Promise((resolve) => setTimeout(resolve, 5));
    await project.run('docker', ['kill', victim.Id]);
    await clients;
    assert.deepEqual(
      answers.filter((status) => status !== 201),
      [],
    );
    assert.equal(answers.length, 120);
    await project.run('docker', ['start', victim.Id]);
    await project.compose('up', '--detach', '--wait', '--no-recreate', '--scale', `api=${REPLICAS}`);
  });

  it('stops each replica on SIGTERM, soon and with exit code 0', async () => {
    const started = Date.now();
    await project.compose('stop', 'api');
    const seconds = (Date.now() - started) / 1000;
    assert.deepEqual(
      (await project.containers('api')).map(({ State }) => [State.Status, State.ExitCode, State.OOMKilled]),
      Array(REPLICAS).fill(['exited', 0, false]),
    );
    assert.ok(seconds < 15, `it took ${seconds} s`);
  });

  it('says 503 with Retry-After, quickly, when no replica is left', async () => {
    const started = Date.now();
    const { status, headers, problem } = await upload(await readFile(join(ROOT, PHOTOGRAPHS[0])));
    assert.deepEqual([status, problem.code, headers.get('retry-after')], [503, 'OVERLOADED', '2']);
    assert.equal(headers.get('content-type'), 'application/problem+json');
    assert.ok(Date.now() - started < 5_000);
  });
});
