// Holds Naru to losing nothing: under a steady load, which sends nothing twice, replicas are scaled, stopped, killed and
// hung, nginx is reloaded, an update rolls, the store goes away or is slow, and clients hang up. Every answer is counted,
// every acknowledged image is read back byte for byte, and the bucket may hold nothing that nobody was told of. Once
// for `npm start -- --replicas 3` and once for the compose stack; the table of losses is printed at the end.
//
//   node --test deploy/test/faults.test.js
//
// FAULTS_STANDS    local,docker: where; local needs nginx, docker needs Docker and toxiproxy-server on PATH
// FAULTS_UPLOADS   120: so many uploads for each fault, and more where it takes longer
// FAULTS_RATE      15: uploads a second
// FAULTS_ONLY      a regular expression of the faults to try; all of them
import assert from 'node:assert/strict';
import { after, before, describe as suite, it } from 'node:test';
import os from 'node:os';
import { DockerStand } from './faults/docker.js';
import { LocalStand } from './faults/local.js';
import { ask, eventually, sleep } from './harness.js';
import { describe, load, readBack, summarize } from './load.js';

const {
  FAULTS_STANDS = 'local,docker',
  FAULTS_UPLOADS = '120',
  FAULTS_RATE = '15',
  FAULTS_ONLY = '',
} = process.env;
const UPLOADS = Number(FAULTS_UPLOADS);
const RATE = Number(FAULTS_RATE);
const STANDS = { local: LocalStand, docker: DockerStand };
const REPLICAS = 3;
const MiB = 1024 * 1024;
const SETTINGS = {
  // nginx keeps the largest image, too, until a replica has answered, and can send it again.
  LB_BUFFER_BYTES: '22000000',
  MAX_UPLOAD_MEMORY_BYTES: String(256 * MiB),
};
/** MAX_UPLOAD_MEMORY_BYTES, and what a replica takes besides (deploy/compose/small-vm.yml). */
const MOST_MIB = 256 + 256;
const LOOK_EVERY_MS = 2_000;
/** An image whose client is gone may stay for 60 s; besides, a replica clears up after a put that failed. */
const TAKEN_BACK_MS = 90_000;
/** Of one fault, with its uploads and reading them back. */
const TIMEOUT_MS = 300_000 + (UPLOADS / RATE) * 3_000;

const eachInTurn = (action) => async (stand) => {
  for (const replica of await stand.replicas()) {
    await action(stand, replica);
    await serves(stand, REPLICAS);
  }
};
const hangOne = (ms) => async (stand) => stand.hang((await stand.replicas())[0], ms);

/** What is done, and whether uploads may be refused with the documented 503 meanwhile. */
const FAULTS = {
  'clients hang up': { hangUps: 0.1, fault: () => undefined },
  'scale 3→1→5→2': {
    fault: async (stand) => {
      for (const count of [1, 5, 2]) {
        await stand.scale(count);
        await serves(stand, count);
        await sleep(1_000);
      }
    },
    mend: (stand) => stand.scale(REPLICAS),
  },
  'SIGTERM to each': { fault: eachInTurn((stand, replica) => stand.end(replica, 'SIGTERM')) },
  'SIGKILL to each': { kills: true, fault: eachInTurn((stand, replica) => stand.end(replica, 'SIGKILL')) },
  'SIGSTOP for 20 s': { fault: hangOne(20_000) },
  // Longer than nginx waits for an answer.
  'SIGSTOP for 35 s': { fault: hangOne(35_000) },
  '10 reloads of nginx': {
    fault: async (stand) => {
      for (let count = 0; count < 10; count++) {
        await stand.reload();
        await sleep(Math.min(2_000, (UPLOADS / RATE / 12) * 1_000));
      }
    },
  },
  'rolling update': { fault: (stand) => stand.roll(REPLICAS) },
  'store down for 10 s': { mayRefuse: true, fault: (stand) => stand.storeDown(10_000) },
  'store slow by 2 s': { mayRefuse: true, fault: (stand) => stand.storeSlow(2_000, 10_000) },
};

const rows = [];

for (const name of FAULTS_STANDS.split(',')) {
  suite(`${name} loses nothing`, { timeout: 3_600_000 }, () => {
    let stand;
    /** Keys that clients who hung up may have left, until they are taken back. */
    let abandoned = new Set();
    /** What a killed replica has left for `npm run sweep`: it can't abort its S3 uploads any more. */
    const unswept = new Set();
    const held = async () => (await everything(stand)).filter((key) => !unswept.has(key));

    before(async () => {
      assert.ok(STANDS[name], `FAULTS_STANDS names "${name}"; expected local or docker, parted by commas`);
      stand = await STANDS[name].start(REPLICAS, SETTINGS);
    });
    after(() => stand?.stop());

    for (const [title, { fault, mend, kills = false, mayRefuse = false, hangUps = 0 }] of Object.entries(
      FAULTS,
    )) {
      if (!new RegExp(FAULTS_ONLY).test(title)) continue;
      it(`under: ${title}`, { timeout: TIMEOUT_MS }, async (t) => {
        await serves(stand, REPLICAS);
        const memory = new Memory(stand);
        const results = await load(
          stand.url,
          { uploads: UPLOADS, rate: RATE, hangUps, signal: t.signal },
          () => fault(stand),
        );
        await mend?.(stand);
        await serves(stand, REPLICAS);
        const largestMiB = await memory.largest();

        const acknowledged = new Set(results.map(({ key }) => key));
        const unknown = async () =>
          (await held()).filter((key) => !acknowledged.has(key) && !abandoned.has(key));
        if (kills) for (const upload of await stand.unfinished()) unswept.add(upload);
        let orphans = await unknown();
        if (hangUps > 0) {
          abandoned = new Set(orphans);
          orphans = [];
        } else if (orphans.length > 0) {
          const none = async () => (orphans = await unknown()).length === 0;
          await eventually(none, TAKEN_BACK_MS, LOOK_EVERY_MS).catch(() => undefined);
        }
        const lost = await readBack(stand.url, results);

        const row = { stand: name, fault: title, ...summarize(results), lost: lost.length, largestMiB };
        rows.push({ ...row, orphans: orphans.length });
        t.diagnostic(JSON.stringify(rows.at(-1)));
        const failed = results.filter(
          ({ outcome }) => outcome === 'failed' || (outcome === '503' && !mayRefuse),
        );
        const logged = failed.length > 0 ? await found(stand, failed) : '';
        assert.equal(
          failed.length,
          0,
          `${failed.length} uploads failed:\n${describe(failed)}\nnginx:\n${logged}`,
        );
        assert.equal(lost.length, 0, `acknowledged, and lost or altered:\n${describe(lost)}`);
        assert.deepEqual(orphans, [], 'in the bucket, and nobody was told');
        assert.ok(row.uploads >= UPLOADS);
        assert.ok(largestMiB < MOST_MIB, `a replica grew to ${largestMiB} MiB`);
      });
    }

    it('and keeps nothing of clients who hung up', async () => {
      let left = [];
      const isEmpty = async () => (left = await held()).length === 0;
      await eventually(isEmpty, TAKEN_BACK_MS, LOOK_EVERY_MS).catch(() => undefined);
      assert.deepEqual(left, []);
    });
  });
}

after(() => console.log(table()));

/** What the bucket holds, whole or not. */
async function everything(stand) {
  return [...(await stand.bucket.keys()), ...(await stand.unfinished())];
}

/** Resolves when so many replicas serve, and none besides. */
async function serves(stand, count) {
  let ids;
  await eventually(async () => {
    ids = new Set();
    for (let asked = 0; asked < 4 * count; asked++) {
      const { status, headers } = await ask(`${stand.url}/health/ready`).catch((error) => ({
        status: error.code,
      }));
      ids.add(status === 200 ? headers['x-served-by'] : status);
    }
    return ids.size === count && [...ids].every((id) => typeof id === 'string');
  }, 120_000).catch(() =>
    assert.fail(`${count} replicas were to serve; there answered ${[...ids].join(', ')}`),
  );
}

/** nginx's words on these, with the replicas it tried. */
async function found(stand, results) {
  const ids = results.slice(0, 20).map(({ requestId }) => requestId);
  return (await stand.logged()).filter((line) => ids.some((id) => line.includes(id))).join('\n');
}

/** Looks again and again how large the largest replica is. */
class Memory {
  #largest = 0;
  #timer;
  #looking;

  constructor(stand) {
    this.#timer = setInterval(() => (this.#looking = this.#look(stand)), LOOK_EVERY_MS);
  }

  async largest() {
    clearInterval(this.#timer);
    await this.#looking;
    return Math.round(this.#largest);
  }

  async #look(stand) {
    // A replica may end just while it is looked at.
    this.#largest = Math.max(this.#largest, await stand.largestMiB().catch(() => 0));
  }
}

function table() {
  const head = [
    'stand',
    'fault',
    'uploads',
    'stored',
    'failed',
    '503',
    'hung up',
    'lost',
    'orphans',
    'p95, ms',
    'max, ms',
    'largest replica, MiB',
  ];
  const lines = rows.map(
    ({ stand, fault, uploads, stored, failed, refused, hungUp, lost, orphans, p95, max, largestMiB }) => [
      stand,
      fault,
      uploads,
      stored,
      failed,
      refused,
      hungUp,
      lost,
      orphans,
      p95,
      max,
      largestMiB,
    ],
  );
  const [cpu] = os.cpus();
  return [
    '',
    `${new Date().toISOString().slice(0, 10)}, ${os.cpus().length} cores of ${cpu?.model}, Node ${process.versions.node}, ${RATE} uploads a second`,
    '',
    ...[head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`),
    '',
  ].join('\n');
}
