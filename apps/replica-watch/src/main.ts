import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { EnvError } from '#env';
import { ReplicaWatch } from '#replica-watch';
import { Addresses } from './addresses.js';
import { type Config, readConfig } from './config.js';
import { ListFile } from './list-file.js';

const LOOK_EVERY_MS = 500;

// Before anything else: as process 1 of a container it has no default.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(0));

/** Asks the replicas whether they are ready, and keeps the list of those that are in a file for nginx. */
async function main(config: Config): Promise<never> {
  const logger = pino({
    level: config.logLevel,
    base: { program: 'replica-watch' },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
  const file = new ListFile(config.file);
  const attempt = (write: () => void) => {
    try {
      write();
    } catch (error) {
      logger.error({
        msg: 'the list can not be written',
        file: config.file,
        reason: (error as Error).message,
      });
    }
  };
  const watch = new ReplicaWatch(
    {
      onList: (serving) => {
        logger.info({ msg: 'who serves', replicas: serving });
        attempt(() => {
          file.put(serving);
        });
      },
      onChange: (change) => {
        logger.info({ msg: 'a replica has changed', ...change });
      },
    },
    config.proxyProtocol,
  );
  const addresses = new Addresses(config.replicas);
  await watch.know(await addresses.find());
  watch.start();
  process.send?.('ready');
  setInterval(() => {
    attempt(() => {
      file.beat();
    });
  }, LOOK_EVERY_MS);
  for (;;) {
    await sleep(LOOK_EVERY_MS);
    void watch.know(await addresses.find());
  }
}

function readConfigOrExit(): Config {
  try {
    return readConfig();
  } catch (error) {
    if (!(error instanceof EnvError)) throw error;
    process.stderr.write(`The replicas can't be watched: ${error.message}\n`);
    process.exit(1);
  }
}

await main(readConfigOrExit());
