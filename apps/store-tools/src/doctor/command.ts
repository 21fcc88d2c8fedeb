import { Command } from 'commander';
import { readEnv } from '#env';
import { S3_RULE, S3_VARIABLES, toS3Options } from '#object-store';
import { EXIT, parseArguments, type Program } from '../program.js';
import { examine } from './doctor.js';
import { toText } from './report.js';

/** `npm run doctor` */
export const doctor: Program = async (call) => {
  const { env, signal, print } = call;
  const { json } = parseArguments(
    new Command('npm run doctor --')
      .description(
        'Tries what the configured object store can do, and says what Naru makes of it.\n' +
          'Reads the S3_ variables of the service. Writes a few small objects and leaves none behind.',
      )
      .option('--json', 'print the result as JSON'),
    call,
  ).opts<{ json?: true }>();
  const options = toS3Options(readEnv(S3_VARIABLES, env, [S3_RULE]));
  const diagnosis = await examine(options, signal);
  print(json ? `${JSON.stringify(diagnosis, undefined, 2)}\n` : toText(diagnosis));
  return diagnosis.isReady && diagnosis.left.length === 0 ? EXIT.ok : EXIT.trouble;
};
