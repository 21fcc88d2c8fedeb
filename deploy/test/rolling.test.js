// `npm run deploy:roll` while clients upload: what is replaced, what is put back, and that nobody notices.
// Needs Docker:
//
//   node --test deploy/test/rolling.test.js
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { ComposeProject } from './compose.js';
import { eventually, freePort, picture, ROOT, sha256, sleep, tally, times, upload } from './harness.js';

const PROJECT = `${process.env.COMPOSE_PROJECT_NAME ?? `naru-test-${process.pid}`}-roll`;
const REPLICAS = 3;
const EVERY_MS = 250;
const AT_ONCE = 8;
const SIZES = [20_000, 150_000, 400_000, 900_000];

const HTTP_PORT = String(await freePort());
const BASE_URL = `http://127.0.0.1:${HTTP_PORT}`;
const dir = await mkdtemp(join(tmpdir(), 'naru-roll-'));
// Another label is another image, without the minutes of another build.
const overlay = join(dir, 'version.yml');
await writeFile(overlay, "services: { api: { build: { labels: { version: '${VERSION}' } } } }\n");
const project = new ComposeProject(PROJECT, { HTTP_PORT, VERSION: '1' }, [overlay]);

describe('npm run deploy:roll', () => {
  let load;
  let old;

  before(() => project.compose('up', '--detach', '--build', '--wait', '--scale', `api=${REPLICAS}`));
  after(async () => {
    await project.compose('down', '--volumes', '--remove-orphans', '--rmi', 'local', '--timeout', '5');
    await rm(dir, { recursive: true });
  });
  beforeEach(async () => {
    old = await ids();
    load = new Load();
  });
  afterEach(async () => {
    await load.isKept();
    // Whatever happened, there are as many as before, and nothing else is left of the roll.
    assert.equal((await project.containers('api')).length, REPLICAS);
    assert.equal(await claim(), '');
  });

  it('puts replicas of the new image and settings in the place of the old', async () => {
    const roll = new Roll({ VERSION: '2', UPLOAD_TIMEOUT_MS: '119000' });
    await roll.says('starting 3 new replicas');
    const second = new Roll();
    assert.equal(await second.code, 2, second.output);
    assert.match(second.output, /Another roll is under way/);
    assert.equal(await roll.code, 0, roll.output);

    const now = await project.containers('api');
    assert.deepEqual(
      now.map(({ Id, State, Config, Image }) => [
        ...[old.includes(Id), State.Health.Status, Config.Labels.version, Image],
        Config.Env.includes('UPLOAD_TIMEOUT_MS=119000'),
      ]),
      Array(REPLICAS).fill([false, 'healthy', '2', now[0].Image, true]),
    );
    assert.deepEqual(await servers(), now.map(({ Config }) => Config.Hostname).sort());

    // For compose they are what it would have made itself.
    const settings = { ...project.env, VERSION: '2', UPLOAD_TIMEOUT_MS: '119000' };
    const words = ['compose', 'up', '--detach', '--no-deps', '--scale', `api=${REPLICAS}`, 'api'];
    await project.run.call({ env: settings }, 'docker', words);
    assert.deepEqual(await ids(), now.map(({ Id }) => Id).sort());
  });

  it('takes new replicas away again that never get ready, and says what their log says', async () => {
    const roll = new Roll({ S3_SECRET_ACCESS_KEY: 'another-one' }, '--no-build', '--timeout', '20');
    assert.equal(await roll.code, 1, roll.output);
    assert.match(roll.output, /was not ready after 20 s\. The end of its log:/);
    assert.deepEqual(await ids(), old);
  });

  it('takes new replicas away at once that end instead', async () => {
    const roll = new Roll({ MAX_PIXELS: 'many' }, '--no-build', '--timeout', '600');
    assert.equal(await roll.code, 1, roll.output);
    assert.match(roll.output, /ended instead of getting ready\. The end of its log:\n.*MAX_PIXELS/s);
    assert.deepEqual(await ids(), old);
  });

  it('is finished by running it again after Ctrl-C while it drains', async () => {
    const roll = new Roll({}, '--no-build', '--at-once', '1');
    await roll.says('draining');
    roll.signal('SIGINT');
    assert.equal(await roll.code, 130, roll.output);
    assert.match(
      roll.output,
      /2 old replicas and 1 new go on.*\nTo finish: npm run deploy:roll -- --timeout 600 --no-build --at-once 1/,
    );
    const [kept] = (await ids()).filter((id) => !old.includes(id));

    const again = new Roll({}, '--no-build');
    assert.equal(await again.code, 0, again.output);
    assert.match(again.output, /of 3 replicas 1 are new/);
    const now = await ids();
    assert.ok(now.includes(kept), 'what was new is not replaced once more');
    assert.deepEqual(
      now.filter((id) => old.includes(id)),
      [],
    );
    // A second SIGTERM would have ended it at once, with what it had in flight.
    assert.doesNotMatch(again.output, /cut/);
  });

  it('is finished by running it again after SIGKILL while it starts new ones', async () => {
    const roll = new Roll({}, '--no-build');
    await roll.says('starting');
    await eventually(async () => (await ids()).length > REPLICAS);
    roll.signal('SIGKILL');
    await roll.code;
    await eventually(async () => (await claim()) === 'exited');

    const again = new Roll({}, '--no-build');
    assert.equal(await again.code, 0, again.output);
    assert.deepEqual(
      (await ids()).filter((id) => old.includes(id)),
      [],
    );
  });

  it('says so when nothing runs', async () => {
    const roll = new Roll({ COMPOSE_PROJECT_NAME: `${PROJECT}-nothing` });
    assert.equal(await roll.code, 2, roll.output);
    assert.match(roll.output, /No replica of project ".*-nothing" runs/);
  });
});

/** Uploads at a steady rate until it is asked what became of them; a machine that can't keep up gets no more at once. */
class Load {
  #answers = [];
  #sent = 0;
  #inFlight = 0;
  #timer = setInterval(() => {
    if (this.#inFlight < AT_ONCE) this.#answers.push(this.#upload());
  }, EVERY_MS);

  async #upload() {
    const image = picture(SIZES[this.#sent++ % SIZES.length]);
    this.#inFlight++;
    try {
      const { status, image: stored, problem } = await upload(BASE_URL, image);
      return { status, id: stored?.id, hash: sha256(image), said: problem?.detail };
    } catch (error) {
      return { status: String(error.cause ?? error) };
    } finally {
      this.#inFlight--;
    }
  }

  /** Each was acknowledged, and each image can be read back byte for byte. */
  async isKept() {
    clearInterval(this.#timer);
    const answers = await Promise.all(this.#answers);
    const failed = answers.filter(({ status }) => status !== 201);
    assert.deepEqual(failed, [], `of ${answers.length} uploads`);
    const kept = await times(answers.length, async (index) => {
      const { id, hash } = answers[index];
      const answer = await fetch(`${BASE_URL}/images/${id}`);
      return sha256(Buffer.from(await answer.arrayBuffer())) === hash;
    });
    assert.deepEqual(tally(kept), answers.length ? { true: answers.length } : {});
    console.log(`${answers.length} uploads, 0 failed`);
  }
}

/** One run of it. */
class Roll {
  output = '';

  constructor(settings = {}, ...words) {
    const env = { ...project.env, VERSION: '2', UPLOAD_TIMEOUT_MS: '119000', ...settings };
    this.child = spawn(process.execPath, ['deploy/roll.js', '--timeout', '600', ...words], {
      cwd: ROOT,
      env,
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.output += text));
    }
    this.code = once(this.child, 'close').then(([code]) => code);
  }

  /** Resolves once it has said so. */
  async says(words) {
    let hasEnded = false;
    void this.code.then(() => (hasEnded = true));
    while (!this.output.includes(words)) {
      assert.ok(!hasEnded, this.output);
      await sleep(25);
    }
  }

  signal(name) {
    this.child.kill(name);
  }
}

async function ids() {
  return (await project.containers('api')).map(({ Id }) => Id).sort();
}

/** The state of the container by which a roll holds others off; '' where there is none. */
async function claim() {
  const words = ['ps', '--all', '--filter', `name=^${PROJECT}-roll$`, '--format', '{{.State}}'];
  return (await project.run('docker', words)).stdout.trim();
}

/** Who answers now. */
async function servers() {
  const answers = await times(8 * REPLICAS, () => fetch(`${BASE_URL}/health/live`));
  return [...new Set(answers.map(({ headers }) => headers.get('x-served-by')))].sort();
}
