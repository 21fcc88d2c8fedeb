// Runs `npm run loadtest` as a user does: against a stack of its own, against one that runs already, and with input that can't
// work. Needs nginx and k6, and Linux:
//
//   node --test deploy/test/loadtest.test.js
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { freePort, ObjectStore, Replica, ROOT, run, sleep } from './harness.js';

const folder = await mkdtemp(join(tmpdir(), 'naru-loadtest-test-'));
after(() => rm(folder, { recursive: true }));

/** One `npm run loadtest`; whatever it starts carries its mark. */
class LoadTest {
  output = '';

  constructor(words, env = {}) {
    this.mark = `NARU_TEST_MARK=${randomUUID()}`;
    const [name, value] = this.mark.split('=');
    this.child = spawn('npm', ['run', '--silent', 'loadtest', '--', ...words], {
      cwd: ROOT,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, CI: 'true', ...env, [name]: value },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.output += text));
    }
    // Comes when the last of its processes has closed its pipes.
    this.closed = once(this.child, 'close');
  }

  /** Resolves with the exit code, once nothing of it runs any more. */
  async ended() {
    const [code] = await this.closed;
    assert.deepEqual(this.running(), [], `something is left running:\n${this.output}`);
    return code;
  }

  /** Command lines of what it has started and what has not ended. */
  running() {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        try {
          const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
          return environment.includes(this.mark) ? [readFileSync(`/proc/${pid}/cmdline`, 'utf8')] : [];
        } catch {
          return []; // It has ended.
        }
      });
  }
}

/** What it says when it can't begin: the message, with exit code 2. */
async function refusal(words, env) {
  const test = new LoadTest(words, env);
  assert.equal(await test.ended(), 2, test.output);
  return test.output;
}

function summaryOf(out) {
  const summary = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
  const schema = JSON.parse(readFileSync(join(ROOT, 'loadtest/summary.schema.json'), 'utf8'));
  const validate = new Ajv2020({ strict: false }).addFormat('date-time', true).compile(schema);
  assert.ok(validate(summary), JSON.stringify(validate.errors));
  return summary;
}

before(() => run('npm', ['run', '--silent', 'loadtest', '--', '--help'])); // builds

describe('npm run loadtest -- --against local', () => {
  const out = join(folder, 'local');
  let test;
  before(async () => {
    const words = ['--replicas', '1,2', '--rounds', '1', '--duration', '3s', '--warm-up', '10', '--out', out];
    test = new LoadTest(['--against', 'local', ...words]);
    assert.equal(await test.ended(), 0, test.output);
  });

  it('measures each number of replicas, and those alone', () => {
    const { runs, target } = summaryOf(out);
    assert.deepEqual(
      runs.map(({ replicas, shares }) => [replicas, Object.keys(shares)]),
      [
        [1, ['replica-1']],
        [2, ['replica-1', 'replica-2']],
      ],
    );
    for (const { errors, rps, cpuMsPerUpload } of runs) {
      assert.equal(errors, 0);
      assert.ok(rps > 0);
      for (const part of ['replicas', 'balancer', 'store', 'generator'])
        assert.ok(cpuMsPerUpload[part] > 0, part);
    }
    assert.equal(target.isScaleOut, false);
  });

  it('says that what shares a machine is not scale-out', () => {
    assert.match(test.output, /NOT scale-out/);
    assert.match(readFileSync(join(out, 'report.html'), 'utf8'), /NOT scale-out/);
  });

  it('draws its charts', () => {
    for (const name of ['scaling', 'latency']) {
      assert.match(readFileSync(join(out, `${name}.svg`), 'utf8'), /^<svg/);
      assert.equal(readFileSync(join(out, `${name}.png`)).toString('latin1', 1, 4), 'PNG');
    }
  });

  it('is no base for a forecast, which says why', async () => {
    const forecast = new LoadTest(['forecast', out, '--rps', '100', '--p95', '500']);
    assert.equal(await forecast.ended(), 1);
    assert.match(forecast.output, /not-scale-out: .*too-few-counts: 2/s);
  });

  it('can be compared', async () => {
    const compare = new LoadTest(['compare', out, join(out, 'summary.json'), '--lang', 'ko']);
    assert.equal(await compare.ended(), 0);
    assert.match(compare.output, /회차 부족/);
  });

  it('is not overwritten', async () => {
    assert.match(await refusal(['--against', 'local', '--out', out]), /holds a result already/);
  });
});

it('stops everything upon Ctrl-C, and leaves no half result', async () => {
  const out = join(folder, 'cut');
  const test = new LoadTest(['--against', 'local', '--replicas', '1,2', '--warm-up', '5', '--out', out]);
  while (test.child.exitCode === null && !/round 1 of 3, 1 replica: \d/.test(test.output)) await sleep(100);
  assert.equal(test.child.exitCode, null, test.output);
  // A terminal sends it to all; npm passes on what is sent to it alone.
  test.child.kill('SIGINT');
  assert.notEqual(await test.ended(), 0);
  assert.ok(!existsSync(out));
});

describe('npm run loadtest -- --against URL', () => {
  const KEY = 'a-key-that-nobody-may-see';
  let store, replica;
  before(async () => {
    store = await ObjectStore.start();
    const hash = createHash('sha256').update(KEY).digest('hex');
    replica = await Replica.start('only-one', store.url, { AUTH: 'api-key', API_KEYS: `test:${hash}` });
  });
  after(async () => {
    await replica?.stop();
    await store?.stop();
  });

  it('measures what is there, with a key that no command line shows', async () => {
    const out = join(folder, 'url');
    const words = ['--against', replica.url, '--rounds', '1', '--duration', '2s', '--out', out];
    const test = new LoadTest(words, { API_KEY: KEY });
    const seen = new Set();
    while (test.child.exitCode === null) {
      for (const command of test.running()) seen.add(command);
      await sleep(100);
    }
    assert.equal(await test.ended(), 0, test.output);
    const { runs, target } = summaryOf(out);
    assert.deepEqual(
      runs.map(({ replicas, shares }) => [replicas, shares]),
      [[1, { 'only-one': 1 }]],
    );
    assert.equal(target.kind, 'url');
    assert.ok(
      [...seen].some((command) => command.startsWith('k6\0')),
      [...seen].join('\n'),
    );
    for (const text of [
      ...seen,
      test.output,
      ...readdirSync(out).map((name) => readFileSync(join(out, name), 'latin1')),
    ]) {
      assert.ok(!text.includes(KEY), text);
    }
  });

  it('refuses a key that is unknown, or missing', async () => {
    const words = ['--against', replica.url, '--out', join(folder, 'refused')];
    assert.match(await refusal(words), /wants an API key: set API_KEY in the environment/);
    assert.match(
      await refusal(words, { API_KEY: 'another' }),
      /wants an API key: that of API_KEY is unknown/,
    );
  });
});

describe('bad input is refused, with exit code 2 and nothing left', () => {
  const out = ['--out', join(folder, 'refused')];
  after(() => assert.ok(!existsSync(join(folder, 'refused'))));

  it('replicas 0', async () => {
    assert.match(
      await refusal(['--replicas', '0', ...out]),
      /--replicas.* '0' is invalid\. Expected a whole number from 1 to 32/,
    );
  });

  it('a target that is down', async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    assert.match(
      await refusal(['--against', url, ...out]),
      /Nothing answers at .* \(ECONNREFUSED\)\. Is it started\?/,
    );
  });

  it('a target that is not Naru', async () => {
    const server = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${server.address().port}`;
    assert.match(await refusal(['--against', url, ...out]), /is not Naru: it sends no X-Served-By/);
    server.close();
  });

  it('no k6, neither in PATH nor by Docker', async () => {
    const bin = join(folder, 'bin');
    await mkdir(bin);
    for (const name of ['node', 'npm', 'sh', 'env']) {
      const { stdout } = await run('sh', ['-c', `command -v ${name}`]);
      symlinkSync(stdout.trim(), join(bin, name));
    }
    const said = await refusal(['--against', 'local', ...out], { PATH: bin });
    assert.match(said, /neither in PATH nor to be had by Docker .*install it/s);
  });

  it('a results folder that can not be written', async () => {
    writeFileSync(join(folder, 'a-file'), '');
    for (const path of [join(folder, 'a-file/results'), '/proc/naru/results']) {
      assert.match(await refusal(['--against', 'local', '--out', path]), /Results can't be written to /);
    }
  });

  it('what is no result', async () => {
    writeFileSync(join(folder, 'other.json'), '{"runs":[]}');
    assert.match(
      await refusal(['forecast', join(folder, 'other.json'), '--rps', '9']),
      /is no result of npm run loadtest/,
    );
    assert.match(
      await refusal(['compare', join(folder, 'none'), join(folder, 'none')]),
      /There is no result at/,
    );
  });
});
