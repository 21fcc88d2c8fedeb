import { execFile } from 'node:child_process';
import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { RunFailed } from '../problem.js';

/** What Docker knows of a container. */
export interface Container {
  readonly Id: string;
  readonly Config: { readonly Hostname: string; readonly Labels: Record<string, string> };
  readonly State: { readonly Running: boolean };
}

/** Runs `docker`, until `signal` ends it; resolves with what it wrote to stdout, rejects with what it wrote to stderr. */
export async function docker(
  words: readonly string[],
  env = process.env,
  signal?: AbortSignal,
): Promise<string> {
  const running = promisify(execFile)('docker', words, {
    env,
    maxBuffer: 64 * 1024 * 1024,
    ...(signal && { signal }),
  });
  try {
    return (await running).stdout;
  } catch (error) {
    // Ended by the signal, it takes its time.
    const { child } = running;
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      await once(child, 'exit');
    }
    const { stderr = '', message } = error as Error & { stderr?: string };
    throw new RunFailed(`docker ${words.slice(0, 3).join(' ')} … failed:\n${stderr.trim() || message}`);
  }
}

/** Whether there is a Docker with compose, and it answers. */
export async function hasDocker(): Promise<boolean> {
  try {
    await docker(['info', '--format', '{{.ID}}']);
    await docker(['compose', 'version']);
    return true;
  } catch {
    return false;
  }
}

/** Seconds of CPU that a container has used since it was started. */
export async function cpuSeconds(id: string): Promise<number> {
  const { cpu_stats } = (await engine(`/containers/${id}/stats?stream=false&one-shot=true`)) as {
    cpu_stats: { cpu_usage: { total_usage: number } };
  };
  return cpu_stats.cpu_usage.total_usage / 1e9;
}

let host: Promise<string> | undefined;

/** Of Docker's own HTTP API: `docker stats` tells percentages over a time of its own choice. */
async function engine(path: string): Promise<unknown> {
  host ??= process.env['DOCKER_HOST']
    ? Promise.resolve(process.env['DOCKER_HOST'])
    : docker(['context', 'inspect', '--format', '{{.Endpoints.docker.Host}}']);
  const [, socketPath] = /^unix:\/\/(.+)/.exec((await host).trim()) ?? [];
  if (socketPath === undefined) throw new RunFailed('Docker is not on this machine.');
  const asked = request({ socketPath, path, timeout: 5_000 });
  asked.on('timeout', () => asked.destroy(new Error('Docker does not answer.')));
  const [answer] = (await once(asked.end(), 'response')) as [IncomingMessage];
  return JSON.parse(await text(answer)) as unknown;
}
