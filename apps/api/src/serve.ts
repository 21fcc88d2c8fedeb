import cluster from 'node:cluster';
import { once } from 'node:events';
import { Logger } from '@nestjs/common';
import { EnvError } from '#env';
import { createApp } from './app.js';
import { type Config, readConfig } from './config.js';
import { Drain } from './drain/drain.js';
import { type StopSignals } from './drain/stop-signals.js';

/** Runs a replica until it is told to stop, or ends the process with one line that says why it can't. */
export async function serve(signals: StopSignals): Promise<void> {
  const config = readConfigOrExit();
  try {
    await listen(config, signals);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    exitWith(code === 'EADDRINUSE' ? `port ${config.port} is in use; set PORT to another one` : message);
  }
}

async function listen(config: Config, signals: StopSignals): Promise<void> {
  const app = await createApp(config);
  const logger = new Logger('Main');
  const server = app.getHttpServer();
  const drain = app.get(Drain);

  await app.listen(config.port, config.host);
  logger.log({ msg: 'listening', address: server.address() });
  // A parent that waits for us (npm start, PM2) hears it; one that is gone leaves nobody to serve.
  process.send?.('ready');
  process.once('disconnect', () => {
    signals.stop('disconnect');
  });
  signals.onStop(
    (reason) => {
      logger.log({ msg: 'stopping', signal: reason });
      void drain.run(server).then(async (isClean) => {
        await leaveCluster();
        await app.close();
        process.exit(isClean ? 0 : 1);
      });
    },
    (signal) => {
      logger.error({ msg: 'stopping at once: a second signal', signal, cut: drain.inFlight });
    },
  );
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
