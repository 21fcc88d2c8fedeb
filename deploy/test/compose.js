// What the tests that need Docker share: the compose file as a project of its own.
import { ROOT, run } from './harness.js';

/** The compose files that COMPOSE_FILE names, else docker-compose.yml, with `overlays` on top. */
export class ComposeProject {
  /** `settings` are the variables that the files read. */
  constructor(name, settings, overlays = []) {
    this.name = name;
    this.env = { ...process.env, COMPOSE_PROJECT_NAME: name, ...settings };
    if (overlays.length === 0) return;
    const plain = process.env.COMPOSE_FILE ?? 'docker-compose.yml';
    this.env.COMPOSE_FILE = [plain, ...overlays].join(process.env.COMPOSE_PATH_SEPARATOR ?? ':');
  }

  /** `docker compose`: silent, unless it fails. */
  async compose(...words) {
    try {
      return await this.run('docker', ['compose', '--progress', 'plain', ...words]);
    } catch (error) {
      const { stdout: containers } = await this.run('docker', ['compose', 'ps', '--all']);
      const { stdout: logs } = await this.run('docker', ['compose', 'logs', '--tail', '50']);
      console.error([error.stdout, error.stderr, containers, logs].join('\n'));
      throw new Error(`docker compose ${words.join(' ')} failed; its output stands above`);
    }
  }

  /** What Docker knows of the project's containers, or of one service's. */
  async containers(...services) {
    const { stdout: ids } = await this.run('docker', ['compose', 'ps', '--all', '--quiet', ...services]);
    if (!ids.trim()) return [];
    const { stdout } = await this.run('docker', ['inspect', ...ids.trim().split('\n')]);
    return JSON.parse(stdout);
  }

  /** What is reached from outside, as "service port". */
  async published() {
    const ports = (await this.containers()).flatMap(({ Config, NetworkSettings }) =>
      Object.values(NetworkSettings.Ports)
        .flatMap((bindings) => bindings ?? [])
        .map(({ HostPort }) => `${Config.Labels['com.docker.compose.service']} ${HostPort}`),
    );
    return [...new Set(ports)].sort();
  }

  run(command, words) {
    return run(command, words, { cwd: ROOT, env: this.env });
  }
}
