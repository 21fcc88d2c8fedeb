// `npm start -- --replicas 3`: this machine's nginx, and the embedded object store as a process of its own, so that it
// can die by itself.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, freePort, ObjectStore, ROOT, run, S3_KEYS, sleep } from '../harness.js';
import { Bucket } from './bucket.js';

const BUCKET = 'naru';

export class LocalStand {
  name = 'local';
  output = '';

  static async start(replicas, settings) {
    const stand = new LocalStand();
    stand.dir = await mkdtemp(join(tmpdir(), 'naru-faults-'));
    stand.store = await ObjectStore.start({ OBJECT_STORE_FAULTS: 'on' });
    stand.bucket = new Bucket(stand.store.url, BUCKET, S3_KEYS);
    const port = await freePort();
    stand.url = `http://127.0.0.1:${port}`;
    stand.log = join(stand.dir, 'access.log');
    const words = ['--port', port, '--replicas', replicas, '--data', stand.dir, '--store', stand.store.url];
    const { PATH, HOME } = process.env;
    stand.npm = spawn('npm', ['start', '--silent', '--', ...words.map(String)], {
      cwd: ROOT,
      env: { PATH, HOME, ...S3_KEYS, S3_BUCKET: BUCKET, LB_ACCESS_LOG: stand.log, ...settings },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    stand.exited = once(stand.npm, 'close');
    for (const stream of [stand.npm.stdout, stand.npm.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (stand.output += text));
    }
    const isReady = () => stand.npm.exitCode !== null || stand.output.includes('Ctrl-C');
    await eventually(isReady, 180_000).catch(() => stand.stop());
    assert.ok(stand.output.includes('Ctrl-C'), `npm start did not start:\n${stand.output}`);
    return stand;
  }

  async stop() {
    this.npm.kill('SIGTERM');
    await this.exited;
    await this.store.stop();
    await rm(this.dir, { recursive: true, force: true });
  }

  /** The process ids of the replicas. */
  async replicas() {
    const { stdout } = await run('ps', ['-A', '-ww', '-o', 'pid=,ppid=,stat=,args=']);
    const all = stdout
      .split('\n')
      .map((line) => /^ *(\d+) +(\d+) +([^Z ]\S*) +(.*)/.exec(line))
      .filter((found) => found !== null)
      .map(([, pid, ppid, , args]) => ({ pid: Number(pid), ppid: Number(ppid), args }));
    const below = (parent) =>
      all.filter(({ ppid }) => ppid === parent).flatMap((child) => [child, ...below(child.pid)]);
    return below(this.npm.pid)
      .filter(({ args }) => args.includes('apps/api/src/main.js'))
      .map(({ pid }) => pid);
  }

  scale(count) {
    return run('npm', ['run', '--silent', 'scale', '--', String(count), '--data', this.dir]);
  }

  /** npm start has another one in its place when it has ended. */
  async end(pid, signal) {
    const { length } = await this.replicas();
    process.kill(pid, signal);
    const isReplaced = async () => {
      const left = await this.replicas();
      return !left.includes(pid) && left.length === length;
    };
    await eventually(isReplaced, 60_000);
  }

  /** npm start has no update; this is the way of one: a new replica serves before an old one goes. */
  async roll(count) {
    await this.scale(count + 1);
    for (const pid of (await this.replicas()).slice(0, count)) await this.end(pid, 'SIGTERM');
    await this.scale(count);
  }

  async hang(pid, ms) {
    process.kill(pid, 'SIGSTOP');
    await sleep(ms);
    process.kill(pid, 'SIGCONT');
  }

  async reload() {
    process.kill(Number(await readFile(join(this.dir, 'nginx/nginx.pid'), 'utf8')), 'SIGHUP');
  }

  async storeDown(ms) {
    this.store.signal('SIGKILL');
    await this.store.exited;
    await sleep(ms);
    this.store = await this.store.again();
  }

  async storeSlow(latencyMs, ms) {
    await this.#setFaults({ latencyMs });
    await sleep(ms);
    await this.#setFaults({});
  }

  /** MiB that the largest replica holds. */
  async largestMiB() {
    const pids = await this.replicas();
    const { stdout } = await run('ps', ['-o', 'rss=', '-p', pids.join()]);
    return Math.max(...stdout.trim().split('\n').map(Number)) / 1024;
  }

  /** Unfinished uploads in the store. */
  async unfinished() {
    return this.bucket.unfinished();
  }

  /** What nginx logged, by line. */
  async logged() {
    return (await readFile(this.log, 'utf8')).split('\n');
  }

  async #setFaults(faults) {
    const answer = await fetch(`${this.store.url}/-/faults`, { method: 'PUT', body: JSON.stringify(faults) });
    if (!answer.ok)
      throw new Error(`the store's fault switches answer ${answer.status} ${await answer.text()}`);
  }
}
