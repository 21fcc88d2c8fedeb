// Runs Naru under the real PM2, in cluster mode, and holds it to losing nothing: from outside, by its port and pm2's
// commands. Needs the build (npm run build) and pm2 7, in PATH or named by PM2:
//
//   PM2=/somewhere/node_modules/.bin/pm2 node --test deploy/test/pm2.test.js
import assert from 'node:assert/strict';
import { execFile, fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { createServer } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { freePort, ROOT, sleep } from './harness.js';

const ECOSYSTEM = join(ROOT, 'deploy/pm2/ecosystem.config.cjs');
const STORE = join(ROOT, 'dist/apps/object-store/src/main.js');
const PM2 = process.env.PM2 ?? 'pm2';
const INSTANCES = 2;
// Each holds one connection or opens one per upload, in turns.
const CLIENTS = 4;
const RELOADS = 2;
const LEAST_UPLOADS = 500;
// Between two uploads of a client; spares the machine, and lets connections fall idle in between.
const PAUSE_MS = 50;
// An answer that doesn't come at all is a loss as well.
const ANSWER_MS = 60_000;
// The default.
const DRAIN_DELAY_MS = 2_000;
// Longer than that, and than PM2's own kill_timeout, 1.6 s.
const HELD_MS = 5_000;

const photograph = await readFile(join(ROOT, 'loadtest/images/hubble-900kB.jpg'));
const secret = randomUUID();
const port = await freePort();

describe('Naru under PM2, two workers', () => {
  let dir, store, environment, daemon;

  before(async () => {
    assert.ok(existsSync(STORE), 'the program is not built: npm run build');
    dir = await mkdtemp(join(tmpdir(), 'naru-pm2-'));
    store = await startStore();
    environment = join(dir, 'env');
    await writeFile(environment, settings());
    await pm2('start', ECOSYSTEM);
    daemon = Number(await readFile(join(dir, 'pm2.pid'), 'utf8'));
  });

  after(async () => {
    if (daemon && isRunning(daemon)) process.kill(daemon, 'SIGCONT');
    await pm2('kill').catch(() => {}); // The tests have done so, unless one failed.
    if (daemon && isRunning(daemon)) process.kill(daemon, 'SIGKILL');
    store?.disconnect();
    if (store && store.exitCode === null) await once(store, 'exit');
    await rm(dir, { recursive: true, force: true });
  });

  it('serves uploads as soon as `pm2 start` returns, from two workers that are told apart', async () => {
    const servedBy = new Set();
    for (let sent = 0; sent < 10; sent++) {
      const { status, image, worker } = await upload();
      assert.equal(status, 201);
      servedBy.add(worker);
      assert.ok(photograph.equals(await read(image.id)));
    }
    assert.deepEqual([...servedBy].sort(), [`${hostname()}-0`, `${hostname()}-1`]);
  });

  it('keeps secrets of the env file out of what `pm2 save` writes', async () => {
    await pm2('save');
    const dump = await readFile(join(dir, 'dump.pm2'), 'utf8');
    assert.ok(dump.includes('naru'));
    assert.ok(!dump.includes(secret));
  });

  it('writes one log for all workers, JSON lines that name them', async () => {
    assert.deepEqual(await readdir(join(dir, 'logs')), ['naru-error.log', 'naru-out.log']);
    const workers = new Set((await logLines()).map(({ replica }) => replica));
    assert.deepEqual([...workers].sort(), [`${hostname()}-0`, `${hostname()}-1`]);
  });

  it('loses no upload while it is reloaded, and replaces every process', { timeout: 600_000 }, async (t) => {
    const seen = new Set(await pids());
    const answers = [];
    let isOver = false;
    const clients = Array.from({ length: CLIENTS }, async (_, index) => {
      const agent = new http.Agent({ keepAlive: index % 2 === 0, maxSockets: 1 });
      while (!isOver || answers.length < LEAST_UPLOADS) {
        answers.push(await upload(agent).catch((error) => ({ status: error.code ?? error.message })));
        await sleep(PAUSE_MS);
      }
      agent.destroy();
    });
    try {
      for (let reload = 0; reload < RELOADS; reload++) {
        await pm2('reload', ECOSYSTEM);
        for (const pid of await pids()) {
          assert.ok(!seen.has(pid), `pid ${pid} was not replaced`);
          seen.add(pid);
        }
      }
    } finally {
      isOver = true;
      await Promise.all(clients);
    }
    const lost = answers.filter(({ status }) => status !== 201).map(({ status }) => status);
    assert.deepEqual(lost, [], `${lost.length} of ${answers.length}`);
    assert.equal(seen.size, INSTANCES * (RELOADS + 1));
    for (const { image } of answers) assert.ok(photograph.equals(await read(image.id)), image.id);
    t.diagnostic(`${answers.length} uploads during ${RELOADS} reloads, none lost`);
  });

  it('loses no connection that a worker was being handed as it left', { timeout: 120_000 }, async () => {
    const [leaving] = await pids();
    // The daemon wakes to both at once: connections to hand out, and a worker that has closed its listener.
    process.kill(daemon, 'SIGSTOP');
    const answers = Array.from({ length: 2 * INSTANCES }, () => upload());
    try {
      await sleep(500);
      const stopping = async () => (await logLines()).filter(({ msg }) => msg === 'stopping').length;
      const before = await stopping();
      process.kill(leaving, 'SIGTERM');
      await until(async () => (await stopping()) > before);
      await sleep(2 * DRAIN_DELAY_MS);
    } finally {
      process.kill(daemon, 'SIGCONT');
    }
    assert.deepEqual(
      (await Promise.all(answers)).map(({ status }) => status),
      answers.map(() => 201),
    );
    // It left without being told to by PM2, which starts another in its place.
    await until(async () =>
      (await processes()).every(({ pid, pm2_env }) => pid !== leaving && pm2_env.status === 'online'),
    );
  });

  it('refuses a reload whose environment is wrong, and serves on as it did', async () => {
    const running = await pids();
    await writeFile(environment, settings({ MAX_IMAGE_BYTES: 'much' }));
    await assert.rejects(pm2('reload', ECOSYSTEM), /MAX_IMAGE_BYTES holds "much"/);
    await writeFile(environment, settings());
    assert.deepEqual(await pids(), running);
    assert.equal((await upload()).status, 201);
  });

  it('takes a changed env file with the next reload', async () => {
    await writeFile(environment, settings({ PUBLIC_URL: 'https://images.test' }));
    await pm2('reload', ECOSYSTEM);
    for (let sent = 0; sent < INSTANCES; sent++) {
      const { image } = await upload();
      assert.equal(image.url, `https://images.test/images/${image.id}`);
    }
  });

  it('finishes an upload in flight before `pm2 stop` returns', async () => {
    // The same connection, so the same worker. PM2 stops one after the other.
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const { worker } = await upload(agent);
    const { isTaken, finish, answered } = startHeldUpload(agent);
    await isTaken;
    const isTold = ({ replica, msg }) => replica === worker && msg === 'stopping';
    const before = (await logLines()).filter(isTold).length;
    let hasStopped = false;
    const stopping = pm2('stop', 'naru').then(() => (hasStopped = true));
    await until(async () => (await logLines()).filter(isTold).length > before);
    await sleep(HELD_MS);
    assert.ok(!hasStopped, 'pm2 did not wait for it');
    finish();
    const { status, image } = await answered;
    assert.equal(status, 201);
    await stopping;
    assert.deepEqual(
      (await processes()).map(({ pid, pm2_env: { status } }) => [pid, status]),
      Array(INSTANCES).fill([0, 'stopped']),
    );
    await pm2('restart', 'naru');
    assert.ok(photograph.equals(await read(image.id)));
  });

  it('leaves nothing running and the port free after `pm2 kill`', async () => {
    const running = [daemon, ...(await pids())];
    await pm2('kill');
    await until(() => !isRunning(daemon)); // It says so a moment before it ends.
    assert.deepEqual(running.filter(isRunning), []);
    const server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    server.close();
  });

  /** An env file, as a team would write it. */
  function settings(more = {}) {
    const all = {
      HOST: '127.0.0.1',
      PORT: port,
      AUTH: 'none',
      S3_ENDPOINT: store.url,
      S3_BUCKET: 'naru',
      S3_CREATE_BUCKET: true,
      S3_ACCESS_KEY_ID: 'naru-test',
      S3_SECRET_ACCESS_KEY: secret,
      ...more,
    };
    return Object.entries(all)
      .map(([name, value]) => `${name}=${value}\n`)
      .join('');
  }

  async function startStore() {
    const child = fork(STORE, {
      env: {
        OBJECT_STORE_DATA_DIR: join(dir, 'store'),
        OBJECT_STORE_PORT: '0',
        S3_ACCESS_KEY_ID: 'naru-test',
        S3_SECRET_ACCESS_KEY: secret,
      },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const [{ url }] = await once(child, 'message');
    return Object.assign(child, { url });
  }

  /** A command of pm2, with a daemon of the tests' own; rejects with what it wrote. */
  async function pm2(...words) {
    const env = {
      PATH: process.env.PATH,
      HOME: dir,
      PM2_HOME: dir,
      PM2_DISABLE_VERSION_CHECK: 'true',
      NO_COLOR: '1',
      ENV_FILE: environment,
      INSTANCES: String(INSTANCES),
    };
    try {
      // From elsewhere, since nothing may hang on the folder it is called from.
      return (await promisify(execFile)(PM2, words, { cwd: tmpdir(), env, maxBuffer: 1e8 })).stdout;
    } catch ({ code, stdout, stderr }) {
      if (code === 'ENOENT') throw new Error(`there is no ${PM2}: npm install --global pm2, or set PM2`);
      throw new Error(`pm2 ${words.join(' ')} failed (${code}):\n${stdout}${stderr}`);
    }
  }

  /** Every whole line that a worker has logged. */
  async function logLines() {
    const log = await readFile(join(dir, 'logs/naru-out.log'), 'utf8');
    return log
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  }

  async function processes() {
    return JSON.parse(await pm2('jlist'));
  }

  async function pids() {
    return (await processes()).map(({ pid }) => pid);
  }
});

/** Over a connection of its own, unless an agent keeps one. No client of ours ever tries again. */
function upload(agent = false) {
  const { request, body, answered } = startUpload({}, agent);
  request.end(body);
  return answered;
}

/** `isTaken` resolves once a worker has begun with it; the second half of the photograph goes out with `finish`. */
function startHeldUpload() {
  const { request, body, answered } = startUpload({ Expect: '100-continue' });
  const half = body.length >> 1;
  request.flushHeaders();
  return {
    isTaken: once(request, 'continue').then(() => request.write(body.subarray(0, half))),
    finish: () => request.end(body.subarray(half)),
    answered,
  };
}

function startUpload(headers, agent = false) {
  const boundary = randomUUID();
  const head =
    `--${boundary}\r\nContent-Disposition: form-data; name="images"; filename="hubble.jpg"\r\n` +
    `Content-Type: image/jpeg\r\n\r\n`;
  const body = Buffer.concat([Buffer.from(head), photograph, Buffer.from(`\r\n--${boundary}--\r\n`)]);
  const request = http.request({
    ...{ host: '127.0.0.1', port, path: '/images', method: 'POST', agent },
    headers: {
      'Content-Type': `multipart/form-data; boundary=${boundary}`,
      'Content-Length': body.length,
      ...headers,
    },
  });
  const tooLate = setTimeout(() => request.destroy(new Error('no answer')), ANSWER_MS);
  const answered = once(request, 'response')
    .then(async ([response]) => ({
      status: response.statusCode,
      worker: response.headers['x-served-by'],
      image: JSON.parse(await collect(response)).images?.[0],
    }))
    .finally(() => clearTimeout(tooLate));
  answered.catch(() => {}); // Whoever awaits it gets to see it.
  return { request, body, answered };
}

async function read(id) {
  const answer = await fetch(`http://127.0.0.1:${port}/images/${id}`);
  assert.equal(answer.status, 200);
  return Buffer.from(await answer.arrayBuffer());
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function until(condition) {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `waited a minute for ${condition}`);
    await sleep(50);
  }
}

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
