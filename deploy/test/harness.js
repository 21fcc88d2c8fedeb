// What the tests of the kit share: the built programs as processes of their own, and a real nginx in front of them.
// `npm test -- --version` builds the programs; they are not looked into, only run and asked over HTTP.
import assert from 'node:assert/strict';
import { execFile, fork, spawn } from 'node:child_process';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { crc32, deflateSync } from 'node:zlib';

export const ROOT = join(import.meta.dirname, '../..');
/** A photograph of 898,692 bytes. */
export const PHOTOGRAPH = join(ROOT, 'loadtest/images/hubble-900kB.jpg');
/** Of the stores that tests start. */
export const S3_KEYS = { S3_ACCESS_KEY_ID: 'naru-test', S3_SECRET_ACCESS_KEY: 'naru-test-secret' };
export const NGINX_IMAGE = process.env.NGINX_IMAGE ?? 'nginx:1.30-alpine';

/** The nginx that tests run against: this machine's own, and that of docker-compose.yml. NGINX names one of them. */
export const NGINXES = process.env.NGINX ? process.env.NGINX.split(',') : ['machine', 'image'];

/** One of our programs; what it logs is kept in `output`. */
class Program {
  output = '';

  constructor(module, env) {
    this.child = fork(join(ROOT, 'dist/apps', module, 'src/main.js'), {
      env: { PATH: process.env.PATH, AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true', ...env },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.exited = once(this.child, 'exit');
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.output += text));
    }
  }

  /** Resolves with what it says when it is ready. */
  async ready() {
    const ended = this.exited.then(() => assert.fail(`it ended instead of starting:\n${this.output}`));
    const [message] = await Promise.race([once(this.child, 'message'), ended]);
    return message;
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Resolves with its exit code and the signal that ended it. */
  async stop(signal = 'SIGTERM') {
    this.child.kill('SIGCONT');
    this.child.kill(signal);
    return this.exited;
  }
}

/** The embedded object store with a folder of its own. */
export class ObjectStore extends Program {
  /** `env` is added to what it needs to start. */
  static async start(env = {}, dir = undefined) {
    const folder = dir ?? (await mkdtemp(join(tmpdir(), 'naru-store-')));
    const store = new ObjectStore('object-store', {
      ...S3_KEYS,
      OBJECT_STORE_DATA_DIR: folder,
      OBJECT_STORE_PORT: '0',
      ...env,
    });
    store.dir = folder;
    store.url = (await store.ready()).url;
    /** Starts it once more, on its port and with what it holds, when it has ended. */
    store.again = () => ObjectStore.start({ ...env, OBJECT_STORE_PORT: new URL(store.url).port }, folder);
    return store;
  }

  async stop() {
    await super.stop();
    await rm(this.dir, { recursive: true });
  }
}

/** One process of the API. `env` is added to what it needs to start. */
export class Replica extends Program {
  static async start(id, storeUrl, env = {}) {
    const port = Number(env.PORT ?? (await freePort()));
    const replica = new Replica('api', {
      ...S3_KEYS,
      HOST: '127.0.0.1',
      PORT: String(port),
      REPLICA_ID: id,
      AUTH: 'none',
      S3_ENDPOINT: storeUrl,
      S3_BUCKET: 'naru-test',
      S3_CREATE_BUCKET: 'true',
      DRAIN_DELAY_MS: '0',
      ...env,
    });
    /** Starts it once more, on its port, when it has ended. */
    replica.again = () => Replica.start(id, storeUrl, { ...env, PORT: String(port) });
    replica.id = id;
    replica.port = port;
    /** As LB_REPLICAS names it. */
    replica.address = `127.0.0.1:${port}`;
    replica.url = `http://127.0.0.1:${port}`;
    await replica.ready();
    return replica;
  }

  /** The lines of its log. */
  get lines() {
    return jsonLines(this.output);
  }
}

/** Who keeps the list of the replicas that are ready, for `LB_REPLICAS_FILE`. */
export class Watch extends Program {
  static async start(file, replicas, env = {}) {
    const watch = new Watch('replica-watch', { LB_REPLICAS: replicas, LB_REPLICAS_FILE: file, ...env });
    await watch.ready();
    return watch;
  }

  /** Each list that it has said, the latest last: `at`, in ms, and `replicas`. */
  get lists() {
    return jsonLines(this.output)
      .filter(({ msg }) => msg === 'who serves')
      .map(({ time, replicas }) => ({ at: Date.parse(time), replicas }));
  }
}

/** nginx as deploy/nginx/balancer.sh starts it, with a folder of its own. */
export class Balancer {
  errors = '';

  /**
   * Resolves when it serves; rejects with what it wrote when it ends instead, with its exit `code` and the `files` it
   * left. `settings` are balancer.sh's variables. A folder that is given outlives it.
   */
  static async start(settings, nginx = 'machine', dir = undefined) {
    const balancer = new Balancer();
    balancer.nginx = nginx;
    balancer.isKept = dir !== undefined;
    balancer.dir = dir ?? (await mkdtemp(join(tmpdir(), 'naru-nginx-')));
    balancer.port = Number(settings.LB_PORT ?? (await freePort()));
    balancer.settings = {
      LB_PORT: String(balancer.port),
      // Not stdout: what Node gives a child there is a socket, which nginx can't open as a file.
      LB_ACCESS_LOG: join(balancer.dir, 'access.log'),
      ...settings,
    };
    balancer.url = `http://127.0.0.1:${balancer.port}`;
    balancer.child = balancer.#spawn('start');
    balancer.child.stderr.setEncoding('utf8').on('data', (text) => (balancer.errors += text));
    balancer.exited = once(balancer.child, 'close');
    let ended = false;
    void balancer.exited.then(() => (ended = true));
    const pid = () => readFile(join(balancer.dir, 'nginx.pid'), 'utf8').catch(() => '');
    while (!ended && !((await pid()) && (await isOpen(balancer.port)))) await sleep(20);
    if (ended) {
      const [code] = await balancer.exited;
      const files = await readdir(balancer.dir);
      await balancer.#clear();
      throw Object.assign(new Error(balancer.errors), { code, files });
    }
    return balancer;
  }

  /** Has it take over other settings, as `balancer.sh reload` does. Rejects with what that wrote when it refuses. */
  async reload(settings) {
    const child = this.#spawn('reload', settings);
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
    const [code] = await once(child, 'close');
    if (code !== 0) throw new Error(errors);
    Object.assign(this.settings, settings);
  }

  /** Its access log. */
  get log() {
    return jsonLines(readFileSync(this.settings.LB_ACCESS_LOG, 'utf8'));
  }

  /** Resolves once `count` lines that fit are in its access log, with all that fit: nginx writes one after it answered. */
  async logged(fits, count = 1) {
    for (let tries = 0; tries < 200; tries++) {
      const lines = this.log.filter(fits);
      if (lines.length >= count) return lines;
      await sleep(25);
    }
    return assert.fail(`not ${count} such lines in the access log of ${this.log.length} lines`);
  }

  async signal(name) {
    if (this.nginx === 'image') await run('docker', ['kill', '--signal', name, this.name]);
    else this.child.kill(name);
  }

  async stop() {
    await this.signal('SIGQUIT');
    await this.exited;
    await this.#clear();
  }

  async #clear() {
    if (!this.isKept) await rm(this.dir, { recursive: true, force: true });
  }

  #spawn(action, settings = {}) {
    const variables = { LB_USER: 'root', ...this.settings, ...settings };
    if (this.nginx === 'machine') {
      return spawn('sh', [join(ROOT, 'deploy/nginx/balancer.sh'), action, this.dir], {
        env: { PATH: process.env.PATH, ...variables },
      });
    }
    const words = Object.entries(variables).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
    if (action === 'reload') {
      return spawn('docker', ['exec', ...words, this.name, 'sh', '/etc/naru/balancer.sh', action, this.dir]);
    }
    this.name = basename(this.dir);
    return spawn('docker', [
      ...['run', '--rm', '--name', this.name, '--network', 'host', ...words],
      ...['--volume', `${ROOT}/deploy/nginx:/etc/naru:ro`, '--volume', `${this.dir}:${this.dir}`],
      ...['--entrypoint', 'sh', NGINX_IMAGE, '/etc/naru/balancer.sh', action, this.dir],
    ]);
  }
}

/** POSTs one image; `status`, `image` or `problem`, and `servedBy`. */
export async function upload(url, image, headers = {}) {
  const form = new FormData();
  form.append('images', new Blob([image], { type: 'image/jpeg' }), 'photograph.jpg');
  const answer = await fetch(`${url}/images`, { method: 'POST', body: form, headers });
  const body = await answer.json();
  return {
    status: answer.status,
    headers: answer.headers,
    servedBy: answer.headers.get('x-served-by'),
    image: body.images?.[0],
    problem: body,
  };
}

/** An image (PNG) of so many bytes, 100 at least, unlike any other. */
export function picture(bytes) {
  const header = Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]);
  const pixel = deflateSync(Buffer.from([0, 128]));
  const chunk = (type, data) => {
    const framed = Buffer.alloc(12 + data.length);
    framed.writeUInt32BE(data.length);
    framed.write(type, 4, 'latin1');
    data.copy(framed, 8);
    framed.writeUInt32BE(crc32(framed.subarray(4, -4)), data.length + 8);
    return framed;
  };
  const signature = Buffer.from('89504e470d0a1a0a', 'hex');
  const most = [signature, chunk('IHDR', header), chunk('IDAT', pixel), chunk('IEND', Buffer.alloc(0))];
  const left = bytes - 12 - Buffer.concat(most).length;
  // A private chunk, which decoders skip.
  return Buffer.concat([...most.slice(0, 3), chunk('naRu', randomBytes(left)), most[3]]);
}

/** A request on a connection of its own. `options` are node:http's (`localAddress`, `ca` …) and `body`. */
export async function ask(url, { body, ...options } = {}) {
  const { request } = url.startsWith('https:') ? https : http;
  const sent = request(url, { agent: false, ...options });
  const answered = once(sent, 'response');
  sent.end(body);
  return read((await answered)[0]);
}

/** What an answer of node:http says, once it is all there. */
export async function read(answer) {
  const bytes = Buffer.concat(await answer.toArray());
  return { status: answer.statusCode, headers: answer.headers, bytes };
}

/** The status and code of a problem, which has to be one as the contract says; `from` is X-Served-By. */
export function problemOf({ status, headers, bytes }, from) {
  assert.match(headers['content-type'] ?? '', /^application\/problem\+json/, `${status} ${bytes}`);
  const problem = JSON.parse(bytes);
  assert.equal(problem.requestId, headers['x-request-id']);
  assert.equal(problem.status, status);
  if (from !== undefined) assert.equal(headers['x-served-by'], from);
  return `${status} ${problem.code}`;
}

// As long as those of clients: in a photograph a short one is found in part so often that the search costs more than
// the rest of the upload.
const BOUNDARY = 'naru-test-boundary-5f0c1d8a7b6e';

/** The body of an upload of one image, and its headers. */
export function form(image) {
  const head = `--${BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="photograph.jpg"\r\n\r\n`;
  return {
    headers: { 'Content-Type': `multipart/form-data; boundary=${BOUNDARY}` },
    body: Buffer.concat([Buffer.from(head), image, Buffer.from(`\r\n--${BOUNDARY}--\r\n`)]),
  };
}

/** A photograph of so many bytes, as some cameras write them: zeros after its end. */
export async function photographOf(bytes) {
  const image = Buffer.alloc(bytes);
  (await photograph()).copy(image);
  return image;
}

/** How often each item is there. */
export function tally(items) {
  const counts = {};
  for (const item of items) counts[item] = (counts[item] ?? 0) + 1;
  return counts;
}

/** Runs `action` for 0 to `count` - 1, so many at a time, and resolves with what it resolved with. */
export async function times(count, action, atOnce = 8) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const index = next++;
      results[index] = await action(index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
  return results;
}

/** Resolves with what `find` finds, which may take some time to come about. */
export async function eventually(find, withinMs = 60_000, everyMs = 25) {
  for (const end = performance.now() + withinMs; performance.now() < end; await sleep(everyMs)) {
    const found = await find();
    if (found) return found;
  }
  return assert.fail(`it has not come about: ${find}`);
}

/** Resolves once `action` resolves with `expected`; it is asked `tries` times, 50 ms apart. */
export async function becomes(action, expected, tries = 200) {
  let last;
  for (let count = 0; count < tries; count++) {
    last = await action();
    if (last === expected) return;
    await sleep(50);
  }
  assert.equal(last, expected);
}

/** Replicas as LB_REPLICAS names them. */
export function list(...replicas) {
  return replicas.map(({ address }) => address).join(', ');
}

/** Not one of those that the system gives to connections, which would take the port of a replica that restarts. */
export async function freePort(address = '127.0.0.1') {
  for (;;) {
    const port = randomInt(10_000, 32_768);
    const server = createServer().listen(port, address);
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    await once(server.close(), 'close');
    return port;
  }
}

export async function isOpen(port) {
  const socket = connect(port, '127.0.0.1');
  const isThere = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return isThere;
}

export function run(command, words, options = {}) {
  return promisify(execFile)(command, words, { cwd: ROOT, maxBuffer: 64 * 1024 * 1024, ...options });
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

export function photograph() {
  return readFile(PHOTOGRAPH);
}

function jsonLines(text) {
  return text
    .split('\n')
    .slice(0, -1)
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
}
