// The compose stack: nginx of its image, and MinIO behind toxiproxy.
import assert from 'node:assert/strict';
import { ComposeProject } from '../compose.js';
import { freePort, run, S3_KEYS, sleep } from '../harness.js';
import { Bucket } from './bucket.js';

const BUCKET = 'naru';

export class DockerStand {
  name = 'docker';

  static async start(replicas, settings) {
    const stand = new DockerStand();
    const [port, proxyPort, minioPort] = [await freePort(), await freePort(), await freePort()];
    stand.url = `http://127.0.0.1:${port}`;
    stand.proxy = `http://127.0.0.1:${proxyPort}/proxies/store`;
    stand.bucket = new Bucket(`http://127.0.0.1:${minioPort}`, BUCKET, S3_KEYS);
    const found = await run('sh', ['-c', 'command -v toxiproxy-server']).catch(() => undefined);
    assert.ok(found, 'toxiproxy-server is not on PATH; FAULTS_STANDS=local does without it');
    stand.project = new ComposeProject(
      `${process.env.COMPOSE_PROJECT_NAME ?? 'naru'}-faults`,
      {
        ...S3_KEYS,
        HTTP_PORT: String(port),
        S3_BUCKET: BUCKET,
        TOXIPROXY: found.stdout.trim(),
        TOXIPROXY_PORT: String(proxyPort),
        MINIO_PORT: String(minioPort),
        ...settings,
      },
      ['deploy/test/faults/toxiproxy.yml'],
    );
    await stand.project.compose('up', '--detach', '--build', '--wait', '--scale', `api=${replicas}`);
    return stand;
  }

  stop() {
    return this.project.compose('down', '--volumes', '--remove-orphans', '--rmi', 'local', '--timeout', '5');
  }

  /** The ids of the replicas' containers. */
  async replicas() {
    const containers = await this.project.containers('api');
    return containers.filter(({ State }) => State.Running).map(({ Id }) => Id);
  }

  scale(count) {
    return this.project.compose('up', '--detach', '--no-recreate', '--scale', `api=${count}`, 'api');
  }

  async end(id, signal) {
    await this.#signal(id, signal);
    await this.project.run('docker', ['wait', id]);
    await this.project.run('docker', ['start', id]);
  }

  roll() {
    return this.project.run('npm', ['run', '--silent', 'deploy:roll']);
  }

  async hang(id, ms) {
    await this.#signal(id, 'SIGSTOP');
    await sleep(ms);
    await this.#signal(id, 'SIGCONT');
  }

  reload() {
    return this.project.compose('exec', 'nginx', 'sh', '/etc/naru/balancer.sh', 'reload', '/run/naru');
  }

  async storeDown(ms) {
    await this.#toxiproxy('', { enabled: false });
    await sleep(ms);
    await this.#toxiproxy('', { enabled: true });
  }

  async storeSlow(latency, ms) {
    await this.#toxiproxy('/toxics', { name: 'slow', type: 'latency', attributes: { latency } });
    await sleep(ms);
    await this.#toxiproxy('/toxics/slow');
  }

  /** MiB that the largest replica holds. */
  async largestMiB() {
    const sizes = await Promise.all(
      (await this.replicas()).map(async (id) => {
        // The first line names the column. A replica that has just ended has none.
        const { stdout } = await this.project
          .run('docker', ['top', id, '-o', 'pid,rss'])
          .catch(() => ({ stdout: '' }));
        const lines = stdout.trim().split('\n').slice(1);
        return Math.max(0, ...lines.map((line) => Number(line.trim().split(/\s+/)[1])));
      }),
    );
    return Math.max(...sizes) / 1024;
  }

  /** Multipart uploads that are neither completed nor aborted, which MinIO keeps in a folder for each key. */
  async unfinished() {
    const folder = '/data/.minio.sys/multipart';
    const { stdout } = await this.project.run('docker', [
      ...['compose', 'exec', 'minio', 'sh', '-c', `ls -d ${folder}/*/* 2>/dev/null || true`],
    ]);
    return stdout.split('\n').filter((line) => line !== '');
  }

  /** What nginx logged, by line. */
  async logged() {
    const { stdout } = await this.project.run('docker', ['compose', 'logs', '--no-log-prefix', 'nginx']);
    return stdout.split('\n');
  }

  #signal(id, signal) {
    return this.project.run('docker', ['kill', '--signal', signal, id]);
  }

  /** Sets, or without settings takes away. */
  async #toxiproxy(path, settings) {
    const answer = await fetch(this.proxy + path, {
      method: settings ? 'POST' : 'DELETE',
      body: settings && JSON.stringify(settings),
    });
    assert.ok(answer.ok, `toxiproxy answers ${answer.status} ${await answer.text()}`);
  }
}
