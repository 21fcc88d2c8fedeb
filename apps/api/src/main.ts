import { Logger } from '@nestjs/common';
import { EnvError } from '#env';
import { ObjectStore } from '#object-store';
import { createApp } from './app.js';
import { type Config, readConfig } from './config.js';
import { Drain } from './drain/drain.js';

async function main(config: Config): Promise<void> {
  const app = await createApp(config);
  const logger = new Logger('Main');
  const server = app.getHttpServer();

  // Where S3_CREATE_BUCKET asks for it, this makes the bucket. A store that is away is no reason
  // not to start: readiness tells.
  await app
    .get(ObjectStore)
    .check(AbortSignal.timeout(config.s3.connectTimeoutMs))
    .catch((error: unknown) => {
      logger.warn({ msg: 'the object store does not answer yet', err: error });
    });
  await app.listen(config.port, config.host);
  logger.log({ msg: 'listening', address: server.address() });
  // A parent that waits for us (npm start, PM2) hears it; one that is gone leaves nobody to serve.
  process.send?.('ready');
  process.once('disconnect', () => {
    process.kill(process.pid, 'SIGTERM');
  });

  const stop = (signal: NodeJS.Signals) => {
    logger.log({ msg: 'stopping', signal });
    void app
      .get(Drain)
      .run(server)
      .then(async (isClean) => {
        app.get(ObjectStore).close();
        await app.close();
        process.exit(isClean ? 0 : 1);
      });
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
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
