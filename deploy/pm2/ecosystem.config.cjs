// Naru on every core of one machine, by PM2 (7). From anywhere, after `npm ci && npm run build`:
//
//   pm2 start  deploy/pm2/ecosystem.config.cjs
//   pm2 reload deploy/pm2/ecosystem.config.cjs     a new build or a new .env, no upload lost
//
// PM2's daemon holds the port and hands each connection to the next worker in turn; a worker is a replica.
/* eslint-disable @typescript-eslint/no-require-imports -- PM2 reads this file as CommonJS */
const { existsSync, readFileSync } = require('node:fs');
const { join } = require('node:path');
const { parseEnv } = require('node:util');

const ROOT = join(__dirname, '../..');
// The store, its keys, the port: see .env.example. None of that stands here.
const ENV_FILE = process.env.ENV_FILE || join(ROOT, '.env');
const hasEnvFile = existsSync(ENV_FILE);
// A variable of the shell wins over the file, as it does in the replica.
const settings = { ...(hasEnvFile && parseEnv(readFileSync(ENV_FILE, 'utf8'))), ...process.env };
const env = { NODE_ENV: 'production' };

// A wrong variable is told here, before PM2 touches what runs: by itself it would replace every worker by one that
// can't start. Cost: only a command that names this file is so guarded; `pm2 reload naru` is not.
try {
  require('../../dist/apps/api/src/config.js').readConfig({ ...settings, ...env });
} catch (error) {
  // PM2 prints all of an error that it meets here; the message is all there is to know.
  throw error.name === 'EnvError' ? error.message : error;
}

module.exports = {
  apps: [
    {
      name: 'naru',
      // Both absolute by way of `cwd`. Default: the folder that pm2 is called from.
      cwd: ROOT,
      script: 'dist/apps/api/src/main.js',

      // Workers that share one port. Default: fork, of which the second finds the port in use. Cost: every
      // connection passes through the daemon; the workers run on the Node.js the daemon was started with, whatever
      // `interpreter` says, until `pm2 update`.
      exec_mode: 'cluster',
      // How many: INSTANCES, or one per core. Default: 1. Cost: each takes about 140 MB, and
      // MAX_UPLOAD_MEMORY_BYTES (256 MiB) more under load; MAX_UPLOAD_MEMORY_BYTES is for one worker.
      // A reload doesn't change the number; `pm2 scale naru 4` does.
      instances: settings.INSTANCES || 'max',

      // A worker counts when it says that it listens. Default: false, and `pm2 start` returns before anybody serves.
      // Cost: none.
      wait_ready: true,
      // Milliseconds that may take. Default: 3000, less than a busy machine may need. Then PM2 goes on as if it had
      // started, and stops the one it was to replace: it never rolls back. Cost: a release that can't start holds
      // up the reload for so long, worker by worker, while the others still serve.
      listen_timeout: 30_000,

      // Milliseconds from SIGINT to SIGKILL. Default: 1600, which cuts uploads and leaves S3 parts behind. It
      // follows SHUTDOWN_TIMEOUT_MS, after which a worker cleans up for up to 3.5 s. Cost: `pm2 stop` and
      // `pm2 reload` wait for the slowest upload. DRAIN_DELAY_MS counts too: for so long a worker tells clients that keep
      // their connection to open another; nobody asks it whether it is ready.
      kill_timeout: Number(settings.SHUTDOWN_TIMEOUT_MS || 25_000) + 5_000,
      // The signal goes to the worker alone. Default: true, to all its descendants; it has none, and without `ps`
      // on the machine nobody would get the signal, only SIGKILL. Cost: none.
      treekill: false,

      // An exit within so many milliseconds of the start is a failed start; after 16 of them PM2 gives up and says
      // "errored". Default: 1000, less than it takes to find a wrong variable on a busy machine, and then PM2 would
      // try for ever. Cost: none.
      min_uptime: 10_000,
      // No max_memory_restart: Naru bounds its own memory, and under load it keeps what it once took. A bound below
      // that replaces healthy workers for ever.

      // Read by each worker as it starts, so that a reload takes what is new in the file. Secrets that come this
      // way, not through the shell, are not in what `pm2 save` writes down in clear (~/.pm2/dump.pm2).
      node_args: hasEnvFile ? [`--env-file=${ENV_FILE}`] : [],
      // It wins over shell and file. API keys are the rule in production; AUTH=none has to be said.
      env,

      // One file of JSON lines for all workers; each line names its replica. Default: a file per worker. Where:
      // ~/.pm2/logs/naru-out.log, and naru-error.log for what ends a worker. Cost: each line passes through the daemon
      // (LOG_LEVEL=warn saves that), and nobody rotates the files (pm2-logrotate does).
      merge_logs: true,
      // PM2's own probe inside the application. Default: true. Cost: none; /metrics is Naru's.
      pmx: false,
    },
  ],
};
