import { askToScale } from './control.js';
import { dataFolder, parseScaleOptions } from './options.js';

const { replicas, data } = parseScaleOptions(process.argv.slice(3));
try {
  process.stdout.write(`${await askToScale(dataFolder(data), replicas)}\n`);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
