import { EnvError, integer, oneOf, readEnv, secret, text } from '#env';
import { startObjectStore } from './object-store-server.js';
import { VENDORS } from './vendor.js';

/** Credentials and region go by the names the API reads them by, so that one environment serves both. */
function readSettings(source: NodeJS.ProcessEnv) {
  return readEnv(
    {
      OBJECT_STORE_DATA_DIR: text('a directory to keep the objects in'),
      OBJECT_STORE_HOST: text('a host name or an address to listen on').default('127.0.0.1'),
      OBJECT_STORE_PORT: integer({ min: 0, max: 65_535, default: 9000 }),
      OBJECT_STORE_FAULTS: oneOf(['on', 'off']).default('off'),
      OBJECT_STORE_VENDOR: oneOf(VENDORS).optional(),
      S3_REGION: text('a region such as us-east-1', /^[a-z0-9-]+$/).default('us-east-1'),
      S3_ACCESS_KEY_ID: text('3 to 128 characters without white space, comma or slash', /^[^\s,/]{3,128}$/),
      S3_SECRET_ACCESS_KEY: secret(text('at least 8 characters', /^.{8,}$/)),
    },
    source,
  );
}

async function main(): Promise<void> {
  const settings = readSettings(process.env);
  const starting = startObjectStore({
    dataDir: settings.OBJECT_STORE_DATA_DIR,
    host: settings.OBJECT_STORE_HOST,
    port: settings.OBJECT_STORE_PORT,
    region: settings.S3_REGION,
    faults: settings.OBJECT_STORE_FAULTS === 'on',
    vendor: settings.OBJECT_STORE_VENDOR,
    accessKeyId: settings.S3_ACCESS_KEY_ID,
    secretAccessKey: settings.S3_SECRET_ACCESS_KEY,
  });
  const stop = () => {
    void starting.then((store) => store.close()).then(() => process.exit(0));
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  // Started by another program, the store does not outlive it, however that one ends.
  process.once('disconnect', stop);

  const { url } = await starting;
  console.log(`object store: ${url}, keeping ${settings.OBJECT_STORE_DATA_DIR}`);
  process.send?.({ url });
}

try {
  await main();
} catch (error) {
  console.error(error instanceof EnvError ? error.message : `object store: ${String(error)}`);
  process.exit(1);
}
