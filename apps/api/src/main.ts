import cluster from 'node:cluster';
import { once } from 'node:events';
import { Logger } from '@nestjs/common';
import { EnvError } from '#env';
import { ObjectStore } from '#object-store';
import { createApp } from './app.js';
import { type Config, readConfig } from './config.js';
import { Drain } from './drain/drain.js';

const STORE_RETRY_MS = 5_000;

async function main(config: Config): Promise<void> {
  const app = await createApp(config);
  const logger = new Logger('Main');
  const server = app.getHttpServer();

  await meetStore(app.get(ObjectStore), config, logger);
  await app.listen(config.port, config.host);
  logger.log({ msg: 'listening', address: server.address() });
  // A parent that waits for us (npm start, PM2) hears it; one that is gone leaves nobody to serve.
  process.send?.('ready');
  process.once('disconnect', () => {
    process.kill(process.pid, 'SIGTERM');
  });

  let isStopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (isStopping) return;
    isStopping = true;
    logger.log({ msg: 'stopping', signal });
    void app
      .get(Drain)
      .run(server)
      .then(async (isClean) => {
        await leaveCluster();
        app.get(ObjectStore).close();
        await app.close();
        process.exit(isClean ? 0 : 1);
      });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

/**
 * Where S3_CREATE_BUCKET asks for it, this makes the bucket. A store that is away is no reason not to start,
 * since readiness tells; it is asked again until it answers.
 */
async function meetStore(store: ObjectStore, config: Config, logger: Logger): Promise<void> {
  try {
    await store.check(AbortSignal.timeout(config.s3.connectTimeoutMs));
  } catch (error) {
    logger.warn({
      msg: 'the object store is not ready',
      reason: error instanceof Error ? error.message : error,
    });
    setTimeout(() => void meetStore(store, config, logger), STORE_RETRY_MS).unref();
  }
}

/**
 * Under PM2 the port is its daemon's. A connection that it was just handing to us goes to another worker
 * once we say that we leave; exiting at once would leave that client waiting for ever.
 */
async function leaveCluster(): Promise<void> {
  if (!cluster.worker?.isConnected()) return;
  const left = once(cluster.worker, 'disconnect');
  cluster.worker.disconnect();
  await left;
}

function readConfigOrExit(): Config {
  try {
    return readConfig();
  } catch (error) {
    if (!(error instanceof EnvError)) throw error;
    return exitWith(error.message);
  }
}

function exitWith(message: string): never {
  process.stderr.write(`Naru can't start: ${message}\n`);
  process.exit(1);
}

const config = readConfigOrExit();
main(config).catch((error: unknown) => {
  const { code, message } = error as NodeJS.ErrnoException;
  exitWith(code === 'EADDRINUSE' ? `port ${config.port} is in use; set PORT to another one` : message);
});
