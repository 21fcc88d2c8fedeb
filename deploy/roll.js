// npm run deploy:roll: a rolling update of the replicas under compose. It starts new ones, waits until they are ready and
// nginx asks them, and only then drains the old. Node and `docker` alone, since it may run where nothing is installed.
//
// What there is to remember Docker keeps, so that a roll that ended at any point, be it by SIGKILL, is finished by running
// it again, from anywhere: Claim knows which replicas are the old ones, and a name which of them drain already.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';

const USAGE = `npm run deploy:roll [-- OPTION...]

Puts new replicas, of a newly built image and of the settings as they are now, in the place of those that run. No request is
lost meanwhile.

  --no-build              take the image that the name stands for now: you have pulled, loaded or tagged it
  --at-once K             replace so many at a time; default: all, which takes twice the memory for a while
  --timeout SECONDS       how long new replicas may take to be ready, and then nginx to ask them, before they are taken
                          away again; default: 120
  -f, --file FILE         files, project and variables, as for docker compose
  -p, --project-name NAME
  --env-file FILE
  -h, --help

Exit code: 0 done; 1 failed, the old replicas go on; 2 could not begin; 130 interrupted, run it again to finish.`;

const SERVICE = 'api';
const COMPOSE = 'com.docker.compose';
const MARK = '-draining';
const POLL_MS = 500;
// Past the time in which a replica ends by itself. Only one that hangs is still there then.
const MARGIN_MS = 5_000;
// For a balancer that can't be asked.
const UNSEEN_MS = 10_000;
// Old workers of nginx take no longer (worker_shutdown_timeout).
const OLD_WORKERS_MS = 135_000;

/** Why it ends, for a person, and the exit code. */
class Stop extends Error {
  constructor(message, code = 1) {
    super(message);
    this.code = code;
  }
}
class Interrupted extends Error {}

/**
 * The right to roll a project: a container that lives as long as this process does, since it reads our standard input, and
 * whose name only one can have. One that has ended while its name is still there is a roll that was interrupted; its labels
 * say how many replicas there were, and which.
 */
class Claim {
  #holder;

  constructor(project, image) {
    this.name = `${project}-roll`;
    this.image = image;
  }

  /** Resolves with the plan of an interrupted roll, if there is one, which stays the plan until another is given. */
  async take(plan) {
    const [earlier] = await inspect([this.name]);
    const labels = earlier?.Config.Labels ?? {};
    const unfinished = labels['naru.roll.count'] && {
      count: Number(labels['naru.roll.count']),
      old: labels['naru.roll.old'].split(','),
    };
    const { count, old } = plan ?? unfinished ?? {};
    const kept = count === undefined ? [] : [`naru.roll.count=${count}`, `naru.roll.old=${old.join()}`];
    try {
      // Refuses while it runs.
      if (earlier) await docker('rm', this.name);
      await this.#hold(kept.flatMap((label) => ['--label', label]));
    } catch (error) {
      if (!/running container|already in use|in progress/i.test(error.message)) throw error;
      throw new Stop(
        `Another roll is under way (container ${this.name}). Wait for it, or end it, and try again.`,
        2,
      );
    }
    return unfinished;
  }

  async #hold(labels) {
    const words = [
      '--interactive',
      '--name',
      this.name,
      '--network',
      'none',
      '--no-healthcheck',
      '--entrypoint',
      'cat',
    ];
    const holder = spawn('docker', ['run', ...words, ...labels, this.image], { detached: true });
    const exited = once(holder, 'exit');
    let errors = '';
    holder.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
    holder.stdin.on('error', () => {});
    holder.stdin.write('\n');
    await Promise.race([once(holder.stdout, 'data'), once(holder, 'close').then(() => fail(errors))]);
    this.#holder = { holder, exited };
  }

  /** Lets others roll; where it isn't finished, they finish it. */
  async release({ isFinished }) {
    this.#holder.holder.stdin.end();
    await this.#holder.exited;
    if (isFinished) await docker('rm', '--force', this.name);
  }
}

const started = performance.now();
let isInterrupted = false;
/** What may be cut, since nothing has changed yet. */
let builder;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    isInterrupted = true;
    builder?.kill('SIGINT');
  });
}
// A terminal that is gone is no reason to break off.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

const options = readOptions();
await roll().catch((error) => {
  if (!(error instanceof Stop)) throw error;
  console.error(error.message);
  process.exitCode = error.code;
});

async function roll() {
  const { name: project, services } = JSON.parse(await compose('config', '--format', 'json'));
  const service = services?.[SERVICE] ?? fail(`The compose files have no service "${SERVICE}".`, 2);
  const [running] = (await replicas(project)).filter(isServing);
  if (!running)
    fail(
      `No replica of project "${project}" runs. To start: docker compose up --detach --scale ${SERVICE}=3`,
      2,
    );

  const claim = new Claim(project, running.Image);
  const unfinished = await claim.take();
  let plan;
  try {
    // It takes its time; a second roll is refused at once.
    await build(service);
    plan = await planFor(project, service, unfinished);
  } catch (error) {
    await claim.release({ isFinished: !unfinished });
    throw error instanceof Interrupted ? new Stop('Interrupted: nothing has changed.', 130) : error;
  }
  await claim.release({ isFinished: false });
  await claim.take({ count: plan.count, old: plan.old.map(({ Id }) => Id) });
  try {
    await replace(project, plan);
  } catch (error) {
    const left = await replicas(project);
    const isUndone = !(error instanceof Interrupted) && left.length === plan.count && !left.some(isDraining);
    await claim.release({ isFinished: isUndone });
    throw error instanceof Interrupted ? new Stop(whatIsLeft(left, plan), 130) : error;
  }
  await claim.release({ isFinished: true });
  say(`done: ${plural(plan.count, 'new replica')} in the place of the old`);
}

/** How many replicas there have to be in the end; which of those there are new, to be replaced, or of no use. */
async function planFor(project, service, unfinished) {
  const found = (await replicas(project)).filter((one) => !isDraining(one));
  const serving = found.filter(isServing);
  const dead = found.filter((one) => !isServing(one));
  const isOld = ({ Id }) => unfinished.old.includes(Id);
  if (!unfinished || !(await replicas(project)).some(isOld))
    return { count: found.length, fresh: [], old: serving, useless: dead };

  const [hash, image] = await Promise.all([
    compose('config', '--hash', SERVICE),
    docker('image', 'inspect', '--format', '{{.Id}}', service.image ?? `${project}-${SERVICE}`),
  ]);
  const isCurrent = ({ Image, Config }) =>
    Image === image.trim() && hash.trim().endsWith(Config.Labels[`${COMPOSE}.config-hash`]);
  const isReady = ({ State }) => State.Health?.Status === 'healthy';
  const added = serving.filter((one) => !isOld(one));
  const fresh = added.filter((one) => isReady(one) && isCurrent(one));
  const useless = added.filter((one) => !isReady(one));
  const old = serving.filter((one) => !fresh.includes(one) && !useless.includes(one));
  say(`going on where it was interrupted: of ${plural(unfinished.count, 'replica')} ${fresh.length} are new`);
  return { count: unfinished.count, fresh, old, useless: [...dead, ...useless] };
}

async function replace(project, { count, fresh, old, useless }) {
  await drain((await replicas(project)).filter(isDraining));
  // compose would start the dead ones again.
  await takeAway(useless);
  let news = fresh.length;
  const olds = [...old];
  while (olds.length > 0 || news < count) {
    const added = Math.min(options.atOnce ?? count, count - news);
    if (added > 0) await add(project, added);
    news += added;
    await drain(olds.splice(0, olds.length + news - count));
  }
}

/** Starts so many replicas and resolves once they are ready and nginx asks them; else takes them away again and throws. */
async function add(project, number) {
  checkInterrupted();
  const before = await replicas(project);
  const added = async () =>
    (await replicas(project)).filter(({ Id }) => !before.some((one) => one.Id === Id));
  const up = [
    'up',
    '--no-deps',
    '--no-recreate',
    '--no-build',
    '--scale',
    `${SERVICE}=${before.length + number}`,
  ];
  try {
    say(`starting ${plural(number, 'new replica')}`);
    await compose(...up, '--no-start', SERVICE);
    if (before[0]) checkFiles(before[0], (await added())[0]);
    await compose(...up, '--detach', SERVICE);
    await areReady(await added());
    await areAsked(project, await added());
  } catch (error) {
    if (error instanceof Interrupted) throw error;
    say(`taking ${plural(number, 'new replica')} away again; the old go on`);
    await takeAway(await added());
    throw error;
  }
}

async function areReady(added) {
  const until = performance.now() + options.timeoutMs;
  for (;;) {
    const now = await inspect(added.map(({ Id }) => Id));
    const ended = added.find(
      ({ Id }) => !now.some((one) => one.Id === Id && isServing(one) && one.RestartCount === 0),
    );
    if (ended) throw await complaint(ended, 'ended instead of getting ready');
    const bare = now.find(({ State }) => !State.Health);
    if (bare)
      fail(`${nameOf(bare)} has no health check, so nobody can tell when it is ready; give the service one.`);
    const waiting = now.filter(({ State }) => State.Health.Status !== 'healthy');
    if (waiting.length === 0) return;
    if (performance.now() > until)
      throw await complaint(waiting[0], `was not ready after ${options.timeoutMs / 1000} s`);
    await pause(POLL_MS);
  }
}

async function complaint(replica, what) {
  const log = await lastWords(replica);
  return new Stop(`${nameOf(replica)} ${what}. The end of its log:\n${log}`);
}

/**
 * Resolves once nginx has asked each of them, and its workers of before it knew of them are gone: those know the old alone,
 * and would place there, and nowhere else, what is just coming in.
 */
async function areAsked(project, added) {
  const [nginx] = (await containersOf(project, 'nginx')).filter(isServing);
  const everybody = (await replicas(project)).map(servedBy);
  const unseen = new Set(added.map(servedBy));
  const until = performance.now() + options.timeoutMs;
  for (let round = 1; unseen.size > 0; round++) {
    const answers = nginx ? await askThrough(nginx, round, everybody.length * 2) : [];
    if (!answers.some((name) => everybody.includes(name))) {
      say(
        `no nginx here tells who answers: waiting ${UNSEEN_MS / 1000} s for the balancer to find the new replicas`,
      );
      return pause(UNSEEN_MS);
    }
    for (const name of answers) unseen.delete(name);
    if (performance.now() > until)
      fail(
        `nginx did not ask ${[...unseen].join(', ')} within ${options.timeoutMs / 1000} s. Does LB_REPLICAS find new replicas?`,
      );
    await pause(POLL_MS);
  }
  const before = await oldWorkers(nginx);
  if (before.length === 0) return;
  say('nginx asks them; its workers of before finish what they have');
  for (const end = performance.now() + OLD_WORKERS_MS; performance.now() < end; await pause(POLL_MS)) {
    const now = await oldWorkers(nginx);
    if (!before.some((pid) => now.includes(pid))) return;
  }
}

/** X-Served-By of so many answers. Addresses and URLs differ, since LB_ALGORITHM may choose by them. */
async function askThrough(nginx, round, number) {
  const env = environment(nginx);
  const url =
    env.LB_TLS === 'on'
      ? `https://127.0.0.1:${env.LB_TLS_PORT || 8443}`
      : `http://127.0.0.1:${env.LB_PORT || 8080}`;
  const one = `curl -ks -m 5 --interface 127.$i.${round % 250}.1 -o /dev/null -D - ${url}/health/live?$i.${round}`;
  const heads = await docker(
    'exec',
    nginx.Id,
    'sh',
    '-c',
    `for i in $(seq ${Math.min(number, 200)}); do ${one}; done; true`,
  );
  return [...heads.matchAll(/^x-served-by: *(\S+)/gim)].map(([, name]) => name);
}

async function oldWorkers(nginx) {
  const pids = await docker(
    'exec',
    nginx.Id,
    'sh',
    '-c',
    'grep -ls "is shutting [d]own" /proc/[0-9]*/cmdline; true',
  );
  return pids.split('\n').filter(Boolean);
}

/** Has replicas finish what they have and end; resolves when they are gone. */
async function drain(leaving) {
  if (leaving.length === 0) return;
  say(`draining ${leaving.map(nameOf).join(', ')}`);
  const told = leaving.filter(isDraining);
  for (const replica of leaving) {
    if (told.includes(replica)) continue;
    checkInterrupted();
    // A second SIGTERM would end it at once. Whoever goes on after us sees by the name that there was one.
    await docker('rename', replica.Id, nameOf(replica) + MARK);
    await terminate(replica);
  }
  for (const replica of leaving) {
    let end = await endOf(replica);
    if (!end && told.includes(replica)) {
      // The one before us may have ended between the two lines above.
      await terminate(replica);
      end = await endOf(replica);
    }
    if (!end) warn(`${nameOf(replica)} did not end and is killed. What it had in flight is cut.`);
    else if (end.ExitCode !== 0 && replica.State.Health?.Status !== 'starting')
      warn((await complaint(replica, `ended with ${end.ExitCode}: it cut what it had in flight`)).message);
    await docker('rm', '--force', replica.Id);
  }
}

/** Sends SIGTERM, unless it has ended by itself since it was looked at. */
async function terminate({ Id }) {
  await run(['kill', '--signal', 'TERM', Id]).catch((error) => {
    if (!/is not running/.test(error.stderr)) throw explained(error);
  });
}

/** The state in which it ended, unless it outlasts its grace period. */
async function endOf(replica) {
  const ownMs = Number(environment(replica).SHUTDOWN_TIMEOUT_MS || 0);
  const graceMs = Math.max(ownMs, (replica.Config.StopTimeout ?? 10) * 1000) + MARGIN_MS;
  for (const end = performance.now() + graceMs; performance.now() < end; await pause(POLL_MS)) {
    const [now] = await inspect([replica.Id]);
    if (!now?.State.Running) return now?.State ?? { ExitCode: 0 };
  }
  return undefined;
}

async function takeAway(unwanted) {
  for (const { Id } of unwanted.filter((one) => !isServing(one))) await docker('rm', '--force', Id);
  await drain(unwanted.filter(isServing));
}

async function build(service) {
  if (options.noBuild) return;
  checkInterrupted();
  const words = [...composeWords(), service.build ? 'build' : 'pull', SERVICE];
  builder = spawn('docker', words, { detached: true, stdio: ['ignore', 'inherit', 'inherit'] });
  const [code] = await once(builder, 'exit');
  builder = undefined;
  checkInterrupted();
  if (code !== 0) fail('There is no new image, for the reason above. The replicas that run are untouched.');
}

/** Forgotten overlays would give new replicas other settings, perhaps another store. */
function checkFiles(old, added) {
  if (options.file || process.env.COMPOSE_FILE || !added) return;
  const [before, now] = [old, added].map(({ Config: { Labels } }) =>
    Labels[`${COMPOSE}.project.config_files`]
      .split(',')
      .map((file) => relative(Labels[`${COMPOSE}.project.working_dir`], file)),
  );
  if (before.join() === now.join()) return;
  const words = (files) => files.map((file) => `-f ${file}`).join(' ');
  fail(
    `The replicas that run were made from ${before.join(', ')}, new ones would be from ${now.join(', ')}.\n` +
      `Say which you mean: npm run deploy:roll -- ${words(before)}`,
    2,
  );
}

function whatIsLeft(left, { old }) {
  const isOld = ({ Id }) => old.some((one) => one.Id === Id);
  const serving = left.filter((one) => isServing(one) && !isDraining(one));
  const draining = left.filter((one) => isServing(one) && isDraining(one)).length;
  const olds = serving.filter(isOld).length;
  const args = process.argv.slice(2);
  return (
    `Interrupted: ${plural(olds, 'old replica')} and ${serving.length - olds} new go on` +
    (draining ? `, ${draining} more finish what they have and end.` : '.') +
    `\nTo finish: npm run deploy:roll${args.length ? ` -- ${args.join(' ')}` : ''}`
  );
}

// --- Docker

function replicas(project) {
  return containersOf(project, SERVICE);
}

async function containersOf(project, service) {
  const labels = [`project=${project}`, `service=${service}`, 'oneoff=False'];
  const filters = labels.flatMap((label) => ['--filter', `label=${COMPOSE}.${label}`]);
  const ids = await docker('ps', '--all', '--quiet', '--no-trunc', ...filters);
  return inspect(ids.split('\n').filter(Boolean));
}

/** What Docker knows of those containers that are there. */
async function inspect(ids) {
  if (ids.length === 0) return [];
  const { stdout } = await run(['container', 'inspect', ...ids]).catch((error) => {
    if (/no such container/i.test(error.stderr)) return error;
    throw explained(error);
  });
  return JSON.parse(stdout);
}

async function docker(...words) {
  const { stdout } = await run(words).catch((error) => {
    throw explained(error);
  });
  return stdout;
}

function compose(...words) {
  return docker(...composeWords(), ...words);
}

function composeWords() {
  const files = (options.file ?? []).flatMap((file) => ['--file', file]);
  const project = options['project-name'] ? ['--project-name', options['project-name']] : [];
  const env = (options['env-file'] ?? []).flatMap((file) => ['--env-file', file]);
  return ['compose', ...files, ...project, ...env];
}

/** In a process group of its own: Ctrl-C is for us, not for a command that is halfway through. */
function run(words) {
  return promisify(execFile)('docker', words, { detached: true, maxBuffer: 64 * 1024 * 1024 });
}

function explained(error) {
  if (error.code === 'ENOENT') return new Stop('There is no command docker on PATH.', 2);
  return new Stop(`docker failed: ${(error.stderr || error.message).trim()}`);
}

async function lastWords({ Id }) {
  const { stdout, stderr } = await run(['logs', '--tail', '20', Id]).catch((error) => error);
  return (stdout + stderr).trimEnd();
}

function nameOf({ Name }) {
  return Name.slice(1);
}

function isDraining({ Name }) {
  return Name.endsWith(MARK);
}

function isServing({ State }) {
  return State.Running && !State.Restarting;
}

/** As it calls itself in X-Served-By. */
function servedBy(container) {
  return environment(container).REPLICA_ID || container.Config.Hostname;
}

function environment({ Config }) {
  return Object.fromEntries(Config.Env.map((line) => line.split(/=(.*)/s, 2)));
}

// --- Words

function readOptions() {
  const string = { type: 'string' };
  const parsed = {
    ...{ 'no-build': { type: 'boolean' }, 'at-once': string, timeout: { ...string, default: '120' } },
    ...{ file: { ...string, short: 'f', multiple: true }, 'project-name': { ...string, short: 'p' } },
    ...{ 'env-file': { ...string, multiple: true }, help: { type: 'boolean', short: 'h' } },
  };
  try {
    const { values } = parseArgs({ options: parsed });
    if (values.help) {
      console.log(USAGE);
      process.exit();
    }
    return {
      ...values,
      noBuild: values['no-build'],
      atOnce: values['at-once'] === undefined ? undefined : whole('--at-once', values['at-once'], 1, 1000),
      timeoutMs: whole('--timeout', values.timeout, 1, 3600) * 1000,
    };
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`);
    return process.exit(2);
  }
}

function whole(name, text, min, max) {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= min && number <= max) return number;
  throw new Error(`${name} holds "${text}"; expected a whole number from ${min} to ${max}`);
}

function plural(number, what) {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

async function pause(ms) {
  for (const end = performance.now() + ms; performance.now() < end; await sleep(Math.min(ms, 100)))
    checkInterrupted();
  checkInterrupted();
}

function checkInterrupted() {
  if (isInterrupted) throw new Interrupted();
}

function fail(message, code) {
  throw new Stop(message, code);
}

function say(text) {
  console.log(`roll ${((performance.now() - started) / 1000).toFixed(1)} s: ${text}`);
}

function warn(text) {
  console.error(`roll: ${text}`);
}
