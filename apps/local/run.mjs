// Entered by `npm start`, `npm test` and their like before anything is installed, so it uses Node alone: it installs
// and builds what is missing or out of date, then hands over to the program that was asked for.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const BUILT = 'dist/.built';
const STORE_TOOLS = ['doctor', 'sweep'];
const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const [, , name, ...args] = process.argv;
process.chdir(join(import.meta.dirname, '../..'));
checkNode();
if (name === 'scale') await scale();
else {
  await prepare();
  if (name === 'test') test(args);
  else if (STORE_TOOLS.includes(name)) {
    // They are started without us as well, and find their options at the same place.
    process.argv.splice(2, 1);
    await import(`../../dist/apps/store-tools/src/${name}/main.js`);
  } else await import(`../../dist/apps/${name === 'loadtest' ? 'loadtest' : 'local'}/src/main.js`);
}

async function prepare() {
  if (!isInstalled())
    await run('Installing packages', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  const sources = fingerprint();
  if (isBuilt(sources)) return;
  rmSync('dist', { recursive: true, force: true });
  await run('Building', process.execPath, ['node_modules/@nestjs/cli/bin/nest.js', 'build']);
  writeFileSync(BUILT, sources);
}

/** Builds nothing: the `npm start` that it is for starts replicas from what is there. */
async function scale() {
  if (existsSync('dist/apps/local/src/scale.js')) return import('../../dist/apps/local/src/scale.js');
  console.error('Nothing is running. Start it with: npm start -- --replicas 3');
  process.exit(1);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  console.error(`Naru needs Node.js 20.19 or newer; this is ${process.versions.node}.`);
  process.exit(1);
}

/** npm writes what it installed to a hidden lock file; it has to hold what package-lock.json asks for. */
function isInstalled() {
  const installed = 'node_modules/.package-lock.json';
  if (!existsSync(installed)) return false;
  const { packages: there } = JSON.parse(readFileSync(installed, 'utf8'));
  const { packages: wanted } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  return Object.entries(wanted).every(
    ([path, { version, optional }]) => path === '' || optional || there[path]?.version === version,
  );
}

function isBuilt(fingerprint) {
  return existsSync(BUILT) && readFileSync(BUILT, 'utf8') === fingerprint;
}

/** Changes with any source file's name, size or time. */
function fingerprint() {
  const hash = createHash('sha256');
  for (const path of [
    'package-lock.json',
    'nest-cli.json',
    '.swcrc',
    'tsconfig.json',
    ...filesBelow('apps'),
    ...filesBelow('libs'),
  ]) {
    const { size, mtimeMs } = statSync(path);
    hash.update(`${path} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((path) => path.endsWith('.ts'))
    .sort()
    .map((path) => join(folder, path));
}

/** Says what goes on and, on a terminal, for how long; what the command writes is shown only if it fails. */
async function run(what, command, words) {
  const started = Date.now();
  const seconds = () => Math.round((Date.now() - started) / 1000);
  const child = spawn(command, words, { shell: process.platform === 'win32' });
  // npm's own children end with it; left alone they would go on without us.
  const stop = (signal) => {
    child.kill(signal);
    process.exit(1);
  };
  for (const signal of STOP_SIGNALS) process.once(signal, stop);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  process.stderr.write(`${what} …`);
  const ticking = setInterval(() => {
    if (process.stderr.isTTY) process.stderr.write(`\r${what} … ${seconds()} s`);
  }, 1_000);
  const status = await new Promise((resolve) => {
    child.on('error', (error) => resolve((output += error.message)));
    child.on('close', resolve);
  });
  clearInterval(ticking);
  for (const signal of STOP_SIGNALS) process.off(signal, stop);
  if (status === 0) {
    process.stderr.write(`${process.stderr.isTTY ? `\r${what} …` : ''} done in ${seconds()} s\n`);
    return;
  }
  console.error(`\n${output}\n${what} failed; the lines above say why.`);
  process.exit(1);
}

function test(words) {
  // Jest loads ES modules through vm modules, which Node keeps behind this flag.
  const flags = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  // The README says once that the AWS SDK will want Node.js 22 from 2027 on.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true';
  const jest = spawn(process.execPath, [...flags, 'node_modules/jest/bin/jest.js', ...words], {
    stdio: 'inherit',
  });
  process.on('SIGTERM', () => jest.kill());
  // The terminal sends Ctrl-C to Jest as well; its exit is ours.
  process.on('SIGINT', () => undefined);
  jest.on('exit', (code) => process.exit(code ?? 1));
}
