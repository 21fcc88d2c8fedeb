import { Command, InvalidArgumentError, Option } from 'commander';
import { integer, readEnv } from '#env';
import { S3_RULE, S3_VARIABLES, toS3Options } from '#object-store';
import { type Call, EXIT, parseArguments, type Program } from '../program.js';
import { bucketUrl, describe, meet, newClient, NoStoreError } from '../store.js';
import { toText } from './report.js';
import { Sweep } from './sweep.js';

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };
/** No upload of Naru lasts as long, unless UPLOAD_TIMEOUT_MS allows it. */
const LEAST_AGE_MS = 10 * 60_000;

interface Options {
  readonly olderThan: number;
  readonly metadata?: true;
  readonly dryRun?: true;
  readonly json?: true;
}

/** `npm run sweep` */
export const sweep: Program = async (call) => {
  const { olderThan: olderThanMs, metadata, dryRun, json } = parseOptions(call);
  const { env: environment, signal, print } = call;
  const env = readEnv(
    { ...S3_VARIABLES, UPLOAD_TIMEOUT_MS: integer({ min: 100, max: 3_600_000, default: 120_000 }) },
    environment,
    [
      S3_RULE,
      {
        of: ['UPLOAD_TIMEOUT_MS'],
        problem: ({ UPLOAD_TIMEOUT_MS }) =>
          olderThanMs < 2 * UPLOAD_TIMEOUT_MS
            ? `UPLOAD_TIMEOUT_MS is ${UPLOAD_TIMEOUT_MS}; expected --older-than to be twice that at least, so that no live upload is swept`
            : undefined,
      },
    ],
  );
  const options = toS3Options(env);
  const clockOffsetMs = await meet(options, signal).catch((error: unknown) => {
    if (error instanceof NoStoreError) throw error;
    throw new Error(`${bucketUrl(options).origin}: ${describe(error)}`);
  });
  const s3 = newClient(options);
  const pass = new Sweep(s3, options.bucket, {
    // By the store's clock, which is the one that has dated the uploads.
    before: new Date(Date.now() + (clockOffsetMs ?? 0) - olderThanMs),
    dryRun: dryRun ?? false,
    metadata: metadata ?? false,
  });
  const result = await pass.run(signal).finally(() => s3.destroy());
  print(json ? `${JSON.stringify(result, undefined, 2)}\n` : toText(result));
  return result.uploads.some(({ outcome }) => outcome === 'failed') ? EXIT.trouble : EXIT.ok;
};

function parseOptions(call: Call): Options {
  return parseArguments(
    new Command('npm run sweep --')
      .description(
        'Aborts multipart uploads of Naru that were never finished, and names objects among the images that are none.\n' +
          'Reads the S3_ variables of the service. Safe beside live uploads, and from several places at once.',
      )
      .addOption(
        new Option('--older-than <age>', 'only what is older: 30m, 24h, 7d (at least 10m)')
          .argParser(parseAge)
          .default(parseAge('24h'), '24h'),
      )
      .option('--metadata', "also ask for each image's metadata: one request per image")
      .option('--dry-run', 'abort nothing, only say what would be')
      .option('--json', 'print the result as JSON'),
    call,
  ).opts<Options>();
}

function parseAge(text: string): number {
  const [, count = '', unit = ''] = /^(\d{1,5})([mhd])$/.exec(text) ?? [];
  const ageMs = Number(count) * (UNIT_MS[unit] ?? NaN);
  if (ageMs >= LEAST_AGE_MS) return ageMs;
  throw new InvalidArgumentError('Expected an age such as 30m, 24h or 7d, of 10m at least.');
}
