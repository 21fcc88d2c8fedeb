// The proof: what three replicas carry against one, each with a CPU quota of its own, and that a replica that dies under load is
// noticed by nobody. Needs Docker and k6, and the machine for itself:
//
//   node --test deploy/test/scale-out.test.js
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { ROOT, run } from './harness.js';

const folder = await mkdtemp(join(tmpdir(), 'naru-scale-out-'));
after(() => rm(folder, { recursive: true }));

/** Runs `npm run loadtest` against compose and resolves with its summary. */
async function loadtest(name, words, env = {}) {
  const out = join(folder, name);
  const all = ['run', '--silent', 'loadtest', '--', '--against', 'compose', '--out', out, ...words];
  const { stdout, stderr } = await run('npm', all, { env: { ...process.env, CI: 'true', ...env } });
  console.log(stderr, stdout);
  return JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
}

it('three carry at least 2.4 times what one does, in even shares, without an error', async () => {
  // So little that three of them, nginx, the store and k6 fit on two cores.
  const words = ['--replicas', '1,3', '--cpus', '0.15', '--duration', '20s'];
  const { runs, target } = await loadtest('one-vs-many', words);
  assert.equal(target.isScaleOut, true);
  for (const { errors, throttled } of runs) assert.deepEqual([errors, throttled], [0, []]);
  const three = runs.find(({ replicas }) => replicas === 3);
  const shares = Object.values(three.shares);
  assert.equal(shares.length, 3);
  for (const share of shares) assert.ok(Math.abs(share - 1 / 3) <= 0.1 / 3, `shares of ${shares}`);
  assert.ok(three.speedup >= 2.4, `a speed-up of ${three.speedup}`);
});

it('loses nothing and fails nobody when a replica is killed under load', async () => {
  const words = [
    '--script',
    'fault',
    '--replicas',
    '3',
    '--cpus',
    '0',
    '--rounds',
    '1',
    '--duration',
    '20s',
    '--warm-up',
    '50',
  ];
  const { runs } = await loadtest('fault', words);
  const [{ errors, requests, missed, rounds }] = runs;
  assert.deepEqual([errors, missed], [0, []]);
  assert.ok(requests >= 200, `${requests} requests`);
  const [{ marks }] = rounds;
  assert.deepEqual(
    marks.map(({ what }) => what),
    ['killed', 'started'],
  );
  for (const { second } of marks) assert.ok(second > 0 && second < 20, `at ${second} s`);
});

it('leaves no container, volume, network or image behind', async () => {
  for (const words of [
    ['ps', '--all', '--quiet', '--filter', 'name=naru-loadtest'],
    ['volume', 'ls', '--quiet', '--filter', 'name=naru-loadtest'],
    ['network', 'ls', '--quiet', '--filter', 'name=naru-loadtest'],
    ['images', '--quiet', 'naru-loadtest*'],
  ]) {
    const { stdout } = await run('docker', words, { cwd: ROOT });
    assert.equal(stdout.trim(), '', words.join(' '));
  }
});
