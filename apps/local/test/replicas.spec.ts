import { jest } from '@jest/globals';
import { exec } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import {
  type Answer,
  answerTo,
  form,
  isOpen,
  Npm,
  photograph,
  processes,
  ROOT,
  SAMPLE,
  Start,
  until,
} from './npm-start.js';
import { freePort } from '../src/free-ports.js';

// They take two minutes and need nginx, so `npm test` leaves them to who asks for them.
const isWanted = process.env['TEST_REPLICAS'] === 'true';
const API = 'api/src/main.js';

// Real processes, on a machine that may be busy.
jest.setTimeout(180_000);

let folder: string;
let port: number;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'naru-replicas-'));
  port = await freePort();
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe('npm start -- --replicas, before anything is started', () => {
  it('says how to get nginx where there is none', async () => {
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    for (const program of ['node', 'npm', 'sh']) symlinkSync(which(program), join(bin, program));
    const data = join(folder, 'data');
    const start = Start.at(port, ['--replicas', '2', '--data', data], { PATH: bin });
    expect(await start.exited).toEqual([1, null]);
    expect(start.output).toMatch(
      /^--replicas needs nginx, .*\n.*apt install nginx .*\n.*brew install nginx\n.*\n$/,
    );
    expect(existsSync(data)).toBe(false);
  });
});

(isWanted ? describe : describe.skip)('npm start -- --replicas (left out without TEST_REPLICAS=true)', () => {
  let running: Start | undefined;

  /** With a folder and a port of its own. */
  async function start(words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Start> {
    running = Start.at(port, ['--data', folder, ...words], env);
    return running.ready();
  }

  async function scale(count: number): Promise<string> {
    const npm = Npm.run('scale', [String(count), '--data', folder]);
    expect([npm.output, ...(await npm.exited)]).toEqual([expect.any(String), 0, null]);
    return npm.output;
  }

  async function expectNothingLeft(pids: readonly number[]): Promise<void> {
    const left = () => processes().filter(({ pid }) => pids.includes(pid));
    await until(() => left().length === 0);
    expect(await isOpen(port)).toBe(false);
  }

  afterEach(async () => {
    running?.npm.kill('SIGTERM');
    await running?.exited;
    running = undefined;
  });

  it('shares uploads among replicas, reads each through all of them, and counts who served', async () => {
    const naru = await start(['--replicas', '3']);
    const uploads = await times(9, (n) => naru.upload(photograph(`${n}`)));
    expect(tally(uploads)).toEqual({ 'replica-1': 3, 'replica-2': 3, 'replica-3': 3 });
    const readers = new Set<unknown>();
    for (const [n, upload] of uploads.entries()) {
      const read = await naru.get(pathOf(upload));
      expect(read.bytes.equals(photograph(`${n}`))).toBe(true);
      readers.add(read.headers['x-served-by']);
    }
    expect(readers.size).toBe(3);

    await naru.says(/ {2}total 18$/m);
    const counted = [...naru.output.matchAll(/replica-2 (\d+)/g)].map(([, count]) => Number(count));
    expect(counted.reduce((a, b) => a + b)).toBe(6);

    // An upload that doesn't come to its end doesn't hold up this one, either.
    const endless = naru.startUpload({ 'content-length': '3000000' });
    endless.on('error', () => clearInterval(dribble)).write('--naru');
    const dribble = setInterval(() => endless.write('-'), 500);
    const pids = naru.pids();
    naru.npm.kill('SIGINT');
    expect(await Promise.race([naru.exited, sleep(60_000)])).toEqual([0, null]);
    await expectNothingLeft(pids);
  });

  it('sends a client to one replica by ip_hash', async () => {
    const naru = await start(['--replicas', '2', '--algorithm', 'ip_hash']);
    expect(naru.output).toContain('ip_hash');
    expect(Object.values(tally(await times(6, () => naru.upload(SAMPLE))))).toEqual([6]);
  });

  it('spares a busy replica by least_conn, and leaves the log to whoever asks for it', async () => {
    const log = join(folder, 'access.log');
    const naru = await start(['--replicas', '2', '--algorithm', 'least_conn'], { LB_ACCESS_LOG: log });
    const long = naru.startUpload({ 'transfer-encoding': 'chunked', expect: '100-continue' });
    const continued = new Promise((resolve) => long.once('continue', resolve));
    long.flushHeaders();
    await continued;
    const others = tally(await times(6, () => naru.upload(SAMPLE)));
    const { status, headers } = await answerTo(long.end(form(SAMPLE)));
    expect(status).toBe(201);
    const [other] = ['replica-1', 'replica-2'].filter((id) => id !== headers['x-served-by']);
    expect(others).toEqual({ [other!]: 6 });
    expect(readFileSync(log, 'utf8')).toContain(`"servedBy":"${other}"`);
    expect(naru.output).not.toContain('requests/s');
  });

  it('scales while uploads come, and loses none', async () => {
    const naru = await start(['--replicas', '2']);
    const answers: Answer[] = [];
    let isOver = false;
    const client = async (name: number) => {
      for (let n = 0; !isOver && naru.npm.exitCode === null; n++) {
        const image = photograph(`${name} ${n}`);
        const answer = await naru.upload(image);
        answers.push(answer);
        expect([answer.status, answer.bytes.toString()]).toEqual([201, expect.any(String)]);
        const read = await naru.get(pathOf(answer));
        expect(read.bytes.equals(image)).toBe(true);
        await sleep(30);
      }
    };
    const clients = [0, 1, 2].map(client);
    const served = async (count: number) => {
      const who = (from: number) => Object.keys(tally(answers.slice(from)));
      const before = answers.length;
      // Workers of nginx that a reload replaced serve for a moment longer.
      await until(() => answers.length >= before + 12 && who(-12).length === count);
      const settled = answers.length;
      await until(() => answers.length >= settled + 12);
      expect(who(settled)).toHaveLength(count);
    };
    await served(2);
    expect(await scale(4)).toContain('2 added');
    await served(4);

    // Begun before three replicas are removed, and longer than a Ctrl-C would wait for.
    const long = await times(8, () => Promise.resolve(naru.startUpload({ 'transfer-encoding': 'chunked' })));
    for (const upload of long) upload.write('--naru');
    const scaled = scale(1);
    await naru.says('Scaling from 4');
    await sleep(6_000);
    const finished = await Promise.all(long.map((upload) => answerTo(upload.end(form(SAMPLE).subarray(6)))));
    expect(await scaled).toContain('3 removed');
    expect(finished.map(({ status }) => status)).toEqual(Array(8).fill(201));
    await served(1);
    expect(naru.pids(API)).toHaveLength(1);
    isOver = true;
    await Promise.all(clients);

    let stored = 0;
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = JSON.parse(
        (
          await naru.get(`/images?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`)
        ).bytes.toString(),
      );
      stored += (page.images as unknown[]).length;
      cursor = page.nextCursor;
    }
    expect(stored).toBe(answers.length + finished.length);
  });

  it('stays as it is when what is added does not start, and when its port or folder is asked for', async () => {
    const naru = await start(['--replicas', '1']);
    const [first] = naru.pids(API);
    const scale = Npm.run('scale', ['2', '--data', folder]);
    await until(() => naru.pids(API).length === 2);
    const [second] = naru.pids(API).filter((pid) => pid !== first);
    process.kill(second!, 'SIGSTOP');
    const again = Npm.run('scale', ['3', '--data', folder]);
    expect(await again.exited).toEqual([1, null]);
    expect(again.output).toContain('scaled already');
    process.kill(second!, 'SIGKILL');
    expect(await scale.exited).toEqual([1, null]);
    expect(scale.output).toContain('replica-2 did not start');

    const samePort = Start.at(port, ['--replicas', '1', '--data', join(folder, 'other')]);
    expect(await samePort.exited).toEqual([1, null]);
    expect(samePort.output).toContain(`Port ${port} is in use`);
    const sameFolder = Start.at(await freePort(), ['--replicas', '1', '--data', folder]);
    expect(await sameFolder.exited).toEqual([1, null]);
    expect(sameFolder.output).toContain(`Another npm start has ${folder}`);

    expect(naru.pids(API)).toEqual([first]);
    expect((await naru.upload(SAMPLE)).status).toBe(201);
  });

  it('starts a replica again that was killed, loses no upload, and when killed itself leaves nothing', async () => {
    const naru = await start(['--replicas', '2']);
    const [, victim] = naru.pids(API);
    const uploads = times(30, () => naru.upload(SAMPLE), 3);
    process.kill(victim!, 'SIGKILL');
    expect((await uploads).map(({ status }) => status)).toEqual(Array(30).fill(201));
    await naru.says(/^replica-\d has ended; starting it again\.$/m);
    const [id] = /replica-\d(?= has ended)/.exec(naru.output)!;
    await until(async () => (await naru.get('/openapi.json')).headers['x-served-by'] === id);
    expect(naru.pids(API)).toHaveLength(2);

    const pids = naru.pids();
    process.kill(naru.pids('run.mjs')[0]!, 'SIGKILL');
    await naru.exited;
    await expectNothingLeft(pids);
    // What it left behind doesn't keep it from starting again.
    await start(['--replicas', '1']);
    expect(await scale(1)).toContain('nothing to do');
  });

  it('asks no replica that hangs, has it back when it goes on, and ends although one is stopped', async () => {
    const naru = await start(['--replicas', '2']);
    const who = async () => {
      const answers = await times(4, () => naru.get('/openapi.json'));
      return Object.keys(tally(answers)).length;
    };
    await until(async () => (await who()) === 2);
    const [, hung] = naru.pids(API);
    process.kill(hung!, 'SIGSTOP');
    // It is taken out within 3 s where there is CPU to spare: deploy/test/feed.test.js.
    await until(async () => (await Promise.race([who(), sleep(2_000, 0)])) === 1);
    expect(await times(6, () => naru.upload(SAMPLE).then(({ status }) => status))).toEqual(
      Array(6).fill(201),
    );
    process.kill(hung!, 'SIGCONT');
    await until(async () => (await who()) === 2);

    process.kill(hung!, 'SIGSTOP');
    const pids = naru.pids();
    naru.npm.kill('SIGINT');
    expect(await Promise.race([naru.exited, sleep(60_000)])).toEqual([0, null]);
    await expectNothingLeft(pids);
  });

  it('stops everything when nginx ends', async () => {
    const naru = await start(['--replicas', '1']);
    const pids = naru.pids();
    // Its workers don't notice, and go on holding the port.
    process.kill(naru.pids('nginx: master')[0]!, 'SIGKILL');
    expect(await naru.exited).toEqual([1, null]);
    expect(naru.output).toContain('nginx has ended; everything is stopped.');
    await expectNothingLeft(pids);
  });

  it.each(['LB_TLS=on', 'LB_LAYER=l4'])('prints a line to try that works with %s', async (setting) => {
    const [name = '', value] = setting.split('=');
    const naru = await start(['--replicas', '2'], { [name]: value, LB_TLS_PORT: String(await freePort()) });
    const [, curl = ''] = /(curl .*)/.exec(naru.output) ?? [];
    const { stdout } = await promisify(exec)(curl, { cwd: ROOT });
    expect(JSON.parse(stdout).images[0].bytes).toBe(SAMPLE.length);
    await naru.says(/^(requests|connections)\/s 1 .*replica-\d 1/m);
  });

  it('passes on what nginx or a replica has against a setting, once', async () => {
    for (const [name, value] of [
      ['LB_MAX_FAILS', 'few'],
      ['MAX_PIXELS', 'many'],
    ] as const) {
      const naru = Start.at(port, ['--data', folder, '--replicas', '2'], { [name]: value });
      expect(await naru.exited).toEqual([1, null]);
      expect(naru.output.split(name)).toHaveLength(2);
      expect(naru.output).toContain(value);
    }
  });
});

function which(program: string): string {
  const found = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, program));
  return found.find(existsSync)!;
}

function pathOf(upload: Answer): string {
  return new URL(upload.headers.location!).pathname;
}

function tally(answers: readonly Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { headers } of answers) {
    const id = String(headers['x-served-by']);
    counts[id] = (counts[id] ?? 0) + 1;
  }
  return counts;
}

/** So many at a time. */
async function times<T>(count: number, action: (n: number) => Promise<T>, atOnce = 1): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const n = next++;
      results[n] = await action(n);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return results;
}
