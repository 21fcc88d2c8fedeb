import { exec } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort } from '../src/free-ports.js';
import { isOpen, Npm, ROOT, SAMPLE, Start } from './npm-start.js';

describe('npm start', () => {
  let data: string;
  let port: number;

  beforeAll(async () => {
    data = mkdtempSync(join(tmpdir(), 'naru-start-'));
    port = await freePort();
  });
  afterAll(() => {
    rmSync(data, { recursive: true });
  });

  it('prints an address and a curl line that works, keeps images over a restart, and leaves nothing running', async () => {
    const first = await Start.at(port, ['--data', data]).ready();
    expect(first.output).toContain(first.url);
    const [, curl = ''] = /(curl .*)/.exec(first.output) ?? [];
    const { stdout } = await promisify(exec)(curl, { cwd: ROOT });
    const [image] = (JSON.parse(stdout) as { images: [{ url: string; bytes: number }] }).images;
    expect(image.bytes).toBe(SAMPLE.length);

    const taken = Start.at(port, ['--data', data]);
    expect(await taken.exited).toEqual([1, null]);
    expect(taken.output).toContain(`Port ${port} is in use`);

    first.npm.kill('SIGINT');
    expect(await first.exited).toEqual([0, null]);
    expect(await isOpen(port)).toBe(false);

    const second = await Start.at(port, ['--data', data]).ready();
    const response = await fetch(image.url);
    expect(Buffer.from(await response.arrayBuffer()).equals(SAMPLE)).toBe(true);
    second.npm.kill('SIGTERM');
    expect(await second.exited).toEqual([0, null]);
    expect(await isOpen(port)).toBe(false);
  });

  it('says that an upload was cut, by its exit code, and ends at once when it is told twice', async () => {
    const start = await Start.at(port, ['--data', data], { SHUTDOWN_TIMEOUT_MS: '60000' }).ready();
    const upload = start.startUpload({ 'transfer-encoding': 'chunked' });
    upload.on('error', () => undefined).write('--naru');
    await sleep(1_000);
    const since = performance.now();
    start.npm.kill('SIGINT');
    await sleep(1_000);
    start.npm.kill('SIGINT');
    expect(await start.exited).toEqual([1, null]);
    expect(performance.now() - since).toBeLessThan(20_000);
    expect(await isOpen(port)).toBe(false);
  });

  it('names a folder that it can not make', async () => {
    const start = Start.at(port, ['--data', '/proc/naru']);
    expect(await start.exited).toEqual([1, null]);
    expect(start.output).toMatch(
      /^--data: \/proc\/naru can't be made or written \(\w+\); choose another folder\.$/m,
    );
  });

  it('has nothing to scale, and ends everything when npm is killed', async () => {
    const start = await Start.at(port, ['--data', data]).ready();
    const scale = Npm.run('scale', ['2', '--data', data]);
    expect(await scale.exited).toEqual([1, null]);
    expect(scale.output).toContain('started without --replicas');

    start.npm.kill('SIGKILL');
    // The pipes close when the last of its processes has ended.
    await start.exited;
    expect(await isOpen(port)).toBe(false);
  });

  it.each([
    ['--port', '70000'],
    ['--store', 'not a url'],
    ['--nonsense', 'x'],
    ['--replicas', '0'],
    ['--replicas', 'x'],
    ['--replicas', '65'],
    ['--algorithm', 'fastest'],
    ['--algorithm', 'least_conn'],
  ])('refuses %s %s with one message', async (...words) => {
    const start = Start.at(port, words);
    expect(await start.exited).toEqual([1, null]);
    expect(start.output).toContain(words[0]);
    expect(start.output).not.toContain('    at ');
  });
});
