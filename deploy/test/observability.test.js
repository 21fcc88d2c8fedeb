// Holds the dashboard, the rules and the compose overlay to what the service really tells: a Prometheus with the
// project's own files watches two replicas, nginx and a store while they work, and while they fail.
// Needs the built service (npm test builds it), Docker Compose, nginx, and Prometheus with nginx's exporter, which
// Debian calls prometheus and prometheus-nginx-exporter:
//
//   node --test deploy/test/observability.test.js
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { freePort, ROOT, sleep } from './harness.js';

const OBSERVABILITY = join(ROOT, 'deploy/observability');
const NGINX_EXPORTER = process.env.NGINX_EXPORTER ?? 'prometheus-nginx-exporter';
const PHOTOGRAPH = join(ROOT, 'loadtest/images/hubble-900kB.jpg');
// Addresses of their own, since a replica goes by its address without the port.
const REPLICAS = ['127.0.0.2', '127.0.0.3'];
const MiB = 1024 * 1024;

const overlay = await composeConfig('docker-compose.yml', 'deploy/compose/observability.yml');
const plain = await composeConfig('docker-compose.yml');
const added = Object.entries(overlay.services).filter(([name]) => !(name in plain.services));
const dashboard = JSON.parse(await read('grafana/dashboards/naru.json'));
const targets = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map((target) => ({ ...target, title })),
);

describe('the compose overlay', () => {
  it('adds Prometheus, Grafana and the exporter, and leaves the rest as it is', () => {
    assert.deepEqual(added.map(([name]) => name).sort(), ['grafana', 'nginx-exporter', 'prometheus']);
    for (const name of Object.keys(plain.services))
      assert.deepEqual(overlay.services[name], plain.services[name]);
  });

  it('publishes nothing beyond this machine, but for nginx', () => {
    const published = Object.entries(overlay.services).flatMap(([name, { ports = [] }]) =>
      ports.map(({ host_ip, published, target }) => `${name} ${host_ip ?? '*'}:${published}:${target}`),
    );
    assert.deepEqual(published.sort(), [
      'grafana 127.0.0.1:3001:3000',
      'nginx *:8080:8080',
      'prometheus 127.0.0.1:9090:9090',
    ]);
  });

  it('moves to the ports it is told', async () => {
    const { services } = await composeConfig('docker-compose.yml', 'deploy/compose/observability.yml', {
      PROMETHEUS_PORT: '19090',
      GRAFANA_PORT: '13001',
    });
    assert.equal(services.prometheus.ports[0].published, '19090');
    assert.equal(services.grafana.ports[0].published, '13001');
    assert.equal(services.grafana.environment.GF_SERVER_ROOT_URL, 'http://localhost:13001');
  });

  for (const [name, service] of added) {
    it(`runs ${name} in a pinned image, read-only and without capabilities`, () => {
      assert.match(service.image, /:v?\d+\.\d+\.\d+$/);
      assert.equal(service.read_only, true);
      assert.deepEqual(service.cap_drop, ['ALL']);
      assert.deepEqual(service.security_opt, ['no-new-privileges:true']);
    });
  }

  it('mounts files that are there, and only to be read', () => {
    const binds = added.flatMap(([, { volumes = [] }]) => volumes.filter(({ type }) => type === 'bind'));
    assert.equal(binds.length, 5);
    for (const { source, read_only } of binds) assert.ok(read_only && existsSync(source), source);
  });

  it('has Grafana with nobody to log in as', () => {
    const { environment } = overlay.services.grafana;
    assert.equal(environment.GF_AUTH_ANONYMOUS_ORG_ROLE, 'Viewer');
    assert.equal(environment.GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION, 'true');
    assert.equal(environment.GF_AUTH_DISABLE_LOGIN_FORM, 'true');
    assert.equal(environment.GF_AUTH_BASIC_ENABLED, 'false');
  });
});

describe('the rules', () => {
  it('are such as promtool accepts', () => promtool('check', 'rules', join(OBSERVABILITY, 'rules.yml')));

  it('fire when they should, and only then', () =>
    promtool('test', 'rules', join(OBSERVABILITY, 'rules.test.yml')));

  it('have an alert each in their tests', async () => {
    const alerts = [...(await read('rules.yml')).matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
    const tests = await read('rules.test.yml');
    assert.ok(alerts.length > 10);
    assert.deepEqual(
      alerts.filter((name) => !tests.includes(`{alertname="${name}"`)),
      [],
    );
  });
});

describe('the dashboard', () => {
  it('has an id of its own for every panel', () => {
    const ids = dashboard.panels.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.every(Number.isInteger));
  });

  it('asks the datasource that is provisioned, and no other', async () => {
    const datasources = await read('grafana/provisioning/datasources/prometheus.yml');
    const [, uid] = /^ +uid: (\S+)$/m.exec(datasources);
    const panels = dashboard.panels.filter(({ type }) => type !== 'row');
    for (const { datasource } of [...panels, ...targets, ...dashboard.templating.list]) {
      assert.deepEqual(datasource, { type: 'prometheus', uid });
    }
  });

  it('counts on the interval at which Prometheus really asks', async () => {
    const [, interval] = /scrape_interval: (\S+)/.exec(await read('prometheus.yml'));
    assert.match(
      await read('grafana/provisioning/datasources/prometheus.yml'),
      new RegExp(`timeInterval: ${interval}\n`),
    );
  });

  it('lies where Grafana looks', () => {
    const { environment, volumes } = overlay.services.grafana;
    const { source, target } = volumes.find(({ target }) => target === '/etc/grafana/dashboards');
    const home = environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH;
    assert.ok(existsSync(home.replace(target, source)), home);
  });
});

describe('Prometheus over two replicas, nginx and a store', { timeout: 180_000 }, () => {
  const processes = [];
  let directory;
  let store;
  let replicas;
  let addresses;
  let nginxUrl;
  let prometheusUrl;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'naru-observability-'));
    await startService();
    await startPrometheus();
    // Work until every figure has been seen twice, which it takes for a rate.
    for (let round = 0; round < 4; round++) {
      await work();
      await sleep(1_100);
    }
    // From here on the store is silent: it takes connections and never answers.
    store.kill('SIGSTOP');
    // A replica says that it isn't ready when it has asked twice, and has to be seen to say so twice.
    for (let round = 0; round < 5; round++) {
      await workInVain();
      await sleep(1_100);
    }
  });

  after(async () => {
    for (const child of processes.reverse()) {
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    }
    await rm(directory, { recursive: true, force: true });
  });

  it('finds every target, and replicas by their addresses', async () => {
    assert.deepEqual(await labels('up == 1', 'job', 'instance'), [
      ...REPLICAS.map((address) => `naru ${address}`),
      'nginx nginx',
    ]);
    assert.deepEqual(await labels('naru_replica_info', 'instance', 'replica'), [
      '127.0.0.2 replica-1',
      '127.0.0.3 replica-2',
    ]);
  });

  for (const title of new Set(targets.map(({ title }) => title))) {
    it(`has figures for the panel "${title}"`, async () => {
      for (const { expr } of targets.filter((target) => target.title === title)) {
        await until(async () => (await figures(expr)).length > 0, `no figures for ${expr}`);
      }
    });
  }

  it('has a figure for each replica wherever the dashboard tells them apart', async () => {
    const perReplica = targets.filter(({ legendFormat }) => legendFormat?.includes('{{instance}}'));
    assert.ok(perReplica.length > 5);
    for (const { expr } of perReplica) {
      assert.deepEqual((await figures(expr)).map(({ metric }) => metric.instance).sort(), REPLICAS, expr);
    }
  });

  it('works out every rule', async () => {
    const evaluated = (await rules()).map(({ name, health, lastError }) => [name, health, lastError]);
    assert.ok(evaluated.length > 15);
    for (const rule of evaluated) assert.deepEqual(rule.slice(1), ['ok', undefined], rule[0]);
    for (const { name, type } of await rules()) {
      if (type === 'recording') await until(async () => (await figures(name)).length > 0, `${name} is empty`);
    }
  });

  it('notices that the store is silent', async () => {
    const expected = [
      'NaruErrorRatioHigh  ',
      'NaruReplicaNotReady 127.0.0.2 ',
      'NaruReplicaNotReady 127.0.0.3 ',
      'NaruStoreFailing  check',
      'NaruStoreFailing  put',
    ];
    await until(
      async () => {
        const raised = await labels('ALERTS', 'alertname', 'instance', 'operation');
        return expected.every((alert) => raised.includes(alert));
      },
      `${expected.join(', ')} are not raised`,
    );
  });

  it('raises the alarm when no replica is left', async () => {
    for (const replica of replicas) replica.kill('SIGKILL');
    await until(
      async () => (await labels('ALERTS{alertstate="firing"}', 'alertname')).includes('NaruNoReplica'),
      'NaruNoReplica does not fire',
      40_000,
    );
  });

  it('was told of everything that the dashboard and the rules speak of', async () => {
    const variables = dashboard.templating.list.map(({ definition }) =>
      definition.replace(/^label_values\((.*), \w+\)$/, '$1'),
    );
    const expressions = [
      ...targets.map(({ expr }) => expr),
      ...(await rules()).map(({ query }) => query),
      ...variables,
    ];
    const selectors = new Set(expressions.flatMap((expr) => selectorsOf(filled(expr))));
    assert.ok(selectors.size > 40);
    const unknown = [];
    for (const selector of selectors) {
      const found = await api('series', { 'match[]': selector });
      if (found.length === 0) unknown.push(selector);
    }
    assert.deepEqual(unknown, []);
  });

  async function startService() {
    const credentials = { S3_ACCESS_KEY_ID: 'test', S3_SECRET_ACCESS_KEY: 'test-secret' };
    const storePort = await freePort('127.0.0.1');
    store = program('object-store', {
      ...credentials,
      OBJECT_STORE_DATA_DIR: join(directory, 'objects'),
      OBJECT_STORE_PORT: storePort,
    });
    await answering(`http://127.0.0.1:${storePort}/`);

    const ports = await Promise.all(REPLICAS.map(freePort));
    replicas = REPLICAS.map((address, index) =>
      program('api', {
        ...credentials,
        HOST: address,
        PORT: ports[index],
        REPLICA_ID: `replica-${index + 1}`,
        AUTH: 'none',
        LOG_LEVEL: 'error',
        S3_ENDPOINT: `http://127.0.0.1:${storePort}`,
        S3_BUCKET: 'naru',
        S3_CREATE_BUCKET: 'true',
        // A silent store is found out by readiness first (2 s), and then by uploads.
        S3_REQUEST_TIMEOUT_MS: '3000',
        S3_MAX_ATTEMPTS: '1',
        // Two photographs at once, and the third is refused.
        MAX_IMAGE_BYTES: String(MiB),
        MAX_UPLOAD_MEMORY_BYTES: String(2 * MiB),
        UPLOAD_WAIT_MS: '0',
      }),
    );
    addresses = REPLICAS.map((address, index) => `${address}:${ports[index]}`);
    await Promise.all(addresses.map((address) => answering(`http://${address}/health/ready`)));

    const nginxPort = await freePort('127.0.0.1');
    nginxUrl = `http://127.0.0.1:${nginxPort}`;
    const file = join(directory, 'nginx.conf');
    await writeFile(
      file,
      `daemon off;
      worker_processes 1;
      pid ${directory}/nginx.pid;
      error_log stderr error;
      events {}
      http {
        access_log off;
        upstream naru { ${addresses.map((address) => `server ${address};`).join(' ')} }
        server {
          listen 127.0.0.1:${nginxPort};
          client_max_body_size 0;
          location / { proxy_pass http://naru; proxy_request_buffering off; proxy_max_temp_file_size 0; }
          location = /nginx/status { stub_status; }
        }
      }`,
    );
    start('nginx', ['-e', 'stderr', '-p', directory, '-c', file]);
    await answering(`${nginxUrl}/nginx/status`);
  }

  /** With the words that the overlay gives, but for addresses and places. */
  async function startPrometheus() {
    const exporterPort = await freePort('127.0.0.1');
    const [uri] = overlay.services['nginx-exporter'].command;
    start(NGINX_EXPORTER, [
      uri.replace('http://127.0.0.1:8080', nginxUrl),
      `--web.listen-address=127.0.0.1:${exporterPort}`,
    ]);
    await answering(`http://127.0.0.1:${exporterPort}/metrics`);

    const file = join(directory, 'prometheus.yml');
    const config = replaced(await read('prometheus.yml'), [
      [
        /dns_sd_configs:\n(?: {6}.*\n)+/,
        `static_configs: [{ targets: [${addresses.map((address) => `'${address}'`).join(', ')}] }]\n`,
      ],
      [/(scrape_interval|scrape_timeout|evaluation_interval): \S+/g, '$1: 1s'],
      ['/etc/prometheus/rules.yml', join(OBSERVABILITY, 'rules.yml')],
      ['nginx:9113', `127.0.0.1:${exporterPort}`],
    ]);
    await writeFile(file, config);
    await promtool('check', 'config', file);

    const port = await freePort('127.0.0.1');
    prometheusUrl = `http://127.0.0.1:${port}`;
    const data = join(directory, 'prometheus');
    await mkdir(data);
    const words = replaced(overlay.services.prometheus.command.join('\n'), [
      ['/etc/prometheus/prometheus.yml', file],
      ['path=/prometheus', `path=${data}`],
    ]);
    start('prometheus', [
      ...words.split('\n'),
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=error',
    ]);
    await answering(`${prometheusUrl}/-/ready`);
  }

  /** Something of all that clients do. */
  async function work() {
    const photograph = await readFile(PHOTOGRAPH);
    const ids = [];
    for (let sent = 0; sent < 6; sent++) {
      const { status, body } = await upload(photograph);
      assert.equal(status, 201);
      ids.push(body.images[0].id);
    }
    for (const id of ids) {
      await answer(`/images/${id}`);
      await answer(`/images/${id}`, { method: 'HEAD' });
      await answer(`/images/${id}/info`);
    }
    for (const id of ids.slice(2))
      assert.equal((await answer(`/images/${id}`, { method: 'DELETE' })).status, 204);
    await answer('/images?limit=1');
    for (let sent = 0; sent < 2; sent++) {
      assert.equal((await answer('/images/none')).status, 404);
      assert.equal((await upload(Buffer.from('%PDF-1.7 no image'))).status, 415);
      // Refused in the middle, so that a put is aborted.
      assert.equal((await upload(Buffer.concat([photograph, Buffer.alloc(MiB)]))).status, 413);
    }
    const crowd = await Promise.all(Array.from({ length: 12 }, () => upload(photograph)));
    assert.ok(crowd.some(({ body }) => body.code === 'OVERLOADED'));
    await probe();
  }

  async function workInVain() {
    const photograph = await readFile(PHOTOGRAPH);
    const answers = await Promise.all([upload(photograph), upload(photograph), probe()]);
    assert.deepEqual(
      answers.slice(0, 2).map(({ body }) => body.code),
      ['STORE_UNAVAILABLE', 'STORE_UNAVAILABLE'],
    );
  }

  /** As Docker does it, every few seconds. */
  function probe() {
    return Promise.all(addresses.map((address) => fetch(`http://${address}/health/ready`)));
  }

  async function upload(bytes) {
    const form = new FormData();
    form.append('images', new Blob([bytes], { type: 'image/jpeg' }), 'photograph.jpg');
    const response = await fetch(`${nginxUrl}/images`, { method: 'POST', body: form });
    return { status: response.status, body: await response.json() };
  }

  async function answer(path, options) {
    const response = await fetch(nginxUrl + path, options);
    await response.arrayBuffer();
    return response;
  }

  /** What an expression comes to, without what is not a number. */
  async function figures(expr) {
    const { result } = await api('query', { query: filled(expr) });
    return result.filter(({ value: [, value] }) => Number.isFinite(Number(value)));
  }

  /** The values of some labels of each series, as lines in order. */
  async function labels(expr, ...names) {
    return (await figures(expr)).map(({ metric }) => names.map((name) => metric[name]).join(' ')).sort();
  }

  async function rules() {
    return (await api('rules')).groups.flatMap(({ rules }) => rules);
  }

  async function api(path, parameters) {
    const response = await fetch(`${prometheusUrl}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const { status, data, error } = await response.json();
    assert.equal(status, 'success', `${error}: ${JSON.stringify(parameters)}`);
    return data;
  }

  function program(name, environment) {
    const main = join(ROOT, `dist/apps/${name}/src/main.js`);
    assert.ok(existsSync(main), 'the service is not built; npm test builds it');
    const quiet = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };
    return start(process.execPath, [main], { ...quiet, ...environment });
  }

  function start(command, words, env = process.env) {
    // What goes wrong is seen; the lines about uploads that fail on purpose are not.
    const child = spawn(command, words, { env, stdio: ['ignore', 'ignore', 'inherit'] });
    child.once('error', (error) => console.error(`${command}: ${error.message}`));
    if (child.pid) processes.push(child);
    return child;
  }
});

/** An expression as Grafana sends it. */
function filled(expr) {
  return expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '2m');
}

/** The metrics of an expression, each with its matchers: all names but those of functions, keywords and labels. */
function selectorsOf(expr) {
  const bare = expr.replace(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, ' ');
  return [...bare.matchAll(/(?<![\w:.])([a-z_:][\w:]*)(?![\w:])(?!\s*\()(\{[^}]*\})?/gi)]
    .filter(([, name]) => !['and', 'or', 'unless', 'bool'].includes(name))
    .map(([selector]) => selector);
}

function replaced(text, replacements) {
  return replacements.reduce((before, [pattern, replacement]) => {
    const result = before.replace(pattern, replacement);
    assert.notEqual(result, before, `nothing matches ${pattern}`);
    return result;
  }, text);
}

function read(path) {
  return readFile(join(OBSERVABILITY, path), 'utf8');
}

/** What Compose makes of the files; a last word that is no string is its environment. */
async function composeConfig(...files) {
  const extra = typeof files.at(-1) === 'string' ? {} : files.pop();
  const defaults = { COMPOSE_DISABLE_ENV_FILE: '1', HTTP_PORT: '', PROMETHEUS_PORT: '', GRAFANA_PORT: '' };
  const env = { ...process.env, ...defaults, ...extra };
  const words = ['compose', ...files.flatMap((file) => ['-f', file]), 'config', '--format', 'json'];
  const { stdout } = await promisify(execFile)('docker', words, { cwd: ROOT, env });
  return JSON.parse(stdout);
}

async function promtool(...words) {
  await promisify(execFile)('promtool', words).catch(({ message, stdout, stderr }) =>
    assert.fail(`${message}\n${stdout}\n${stderr}`),
  );
}

async function answering(url) {
  await until(
    () =>
      fetch(url).then(
        ({ status }) => status < 500,
        () => false,
      ),
    `${url} does not answer`,
  );
}

async function until(holds, otherwise, timeoutMs = 20_000) {
  const deadline = Date.now() + timeoutMs;
  while (!(await holds())) {
    if (Date.now() > deadline) assert.fail(otherwise);
    await sleep(200);
  }
}
