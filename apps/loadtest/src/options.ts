import { existsSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { BadInput } from './problem.js';

export const ROOT = resolve(import.meta.dirname, '../../../..');
/** The widest that k6's scripts tell apart. */
const MAX_REPLICAS = 32;

export type Language = 'en' | 'ko';

export interface RunOptions {
  /** In ascending order, each once; undefined: the stack has what it has. */
  readonly replicas: readonly number[] | undefined;
  /** Undefined: compose if Docker works, else local. */
  readonly against: 'compose' | 'local' | URL | undefined;
  /** Cores of each replica; 0: no quota. */
  readonly cpus: number;
  readonly rounds: number;
  readonly durationSeconds: number;
  /** Uploads for each replica before anything is measured; undefined: as many as suit the target. */
  readonly warmUp: number | undefined;
  readonly clients: number;
  readonly script: string;
  readonly lang: Language;
  readonly out: string | undefined;
}

export interface ForecastOptions {
  readonly rps: number;
  readonly p95?: number;
  readonly link: number;
  readonly lang: Language;
}

export type Asked =
  | { readonly command: 'run'; readonly options: RunOptions }
  | { readonly command: 'compare'; readonly files: readonly [string, string]; readonly lang: Language }
  | { readonly command: 'forecast'; readonly file: string; readonly options: ForecastOptions }
  | { readonly command: 'none' };

/** Prints help or what is wrong. @throws BadInput for what isn't commander's to see */
export function parse(args: readonly string[]): Asked {
  let asked: Asked = { command: 'none' };
  const program = new Command('npm run loadtest --')
    .description('Measures how many uploads a second so many replicas take, and what more of them bring.')
    .addOption(
      new Option('--replicas <counts>', 'how many, one run for each, as 1,2,3,4 (default: 1,3)').argParser(
        parseCounts,
      ),
    )
    .addOption(
      new Option(
        '--against <target>',
        'compose or local: a stack of its own, which goes afterwards; or the URL of one that runs (default: compose if Docker works, else local)',
      ).argParser(parseTarget),
    )
    .option(
      '--cpus <cores>',
      'with compose: the quota of each replica while it is measured; 0: none',
      parseCpus,
      0.2,
    )
    .option('--rounds <count>', 'how often each is measured, there and back', parseWhole(1, 50), 3)
    .option('--duration <time>', 'of each measurement, as 16s or 2m', parseTime, 16)
    .option(
      '--warm-up <uploads>',
      'for each replica, before anything is measured (default: 400; none at a URL)',
      parseWhole(0, 100_000),
    )
    .option(
      '--clients <count>',
      'for each replica, each sending one upload after the other',
      parseWhole(1, 100),
      4,
    )
    .option('--script <name>', 'of loadtest/', 'one-vs-many')
    .addOption(language())
    .option('--out <folder>', 'for the results (default: loadtest/results/ and the time)')
    .helpOption('--help', 'show this')
    .allowExcessArguments(false)
    .showHelpAfterError('(npm run loadtest -- --help lists the options)')
    .action((given: Record<string, never>) => {
      asked = { command: 'run', options: runOptions(given) };
    });
  // Bad input is 2 here; commander's own is 1. What follows the name of a command is that command's.
  program.exitOverride().enablePositionalOptions();
  program
    .command('compare <a> <b>')
    .description(
      'says what changed, beyond noise, from one result to another: folders, or their summary.json',
    )
    .addOption(language())
    .action((a: string, b: string, { lang }: { lang: Language }) => {
      asked = { command: 'compare', files: [a, b], lang };
    });
  program
    .command('forecast <result>')
    .description('says how many replicas a load takes, by a result: a folder, or its summary.json')
    .requiredOption('--rps <uploads>', 'uploads a second', parsePositive)
    .option('--p95 <ms>', 'the 95th percentile is to stay under this', parsePositive)
    .option('--link <Gbit/s>', "of the balancer's network", parsePositive, 1)
    .addOption(language())
    .action((file: string, options: ForecastOptions) => {
      asked = { command: 'forecast', file, options };
    });
  for (const command of program.commands) command.exitOverride().helpOption('--help', 'show this');
  program.parse(args, { from: 'user' });
  return asked;
}

function runOptions(given: Record<string, unknown>): RunOptions {
  const { duration, replicas, against, ...rest } = given as {
    duration: number;
    replicas?: number[];
    against?: RunOptions['against'];
    script: string;
  } & Omit<RunOptions, 'durationSeconds' | 'replicas' | 'against'>;
  if (against instanceof URL && replicas !== undefined) {
    throw new BadInput(
      '--replicas is for a stack that is started here; what runs at a URL has the replicas it has.',
    );
  }
  const scripts = readdirSync(resolve(ROOT, 'loadtest'))
    .filter((name) => name.endsWith('.js'))
    .map((name) => name.slice(0, -3));
  if (!scripts.includes(rest.script)) {
    throw new BadInput(
      `--script ${rest.script}: there is none of that name; there are ${scripts.join(', ')}.`,
    );
  }
  return {
    ...rest,
    against,
    warmUp: rest.warmUp,
    out: rest.out,
    durationSeconds: duration,
    replicas: against instanceof URL ? undefined : (replicas ?? [1, 3]),
  };
}

/** Relative to where npm was called. */
export function userPath(path: string): string {
  return resolve(process.env['INIT_CWD'] ?? process.cwd(), path);
}

/** The summary.json of a result that is named by its folder or by itself. */
export function summaryPath(path: string): string {
  const full = userPath(path);
  const inside = resolve(full, 'summary.json');
  if (existsSync(inside)) return inside;
  if (!existsSync(full)) throw new BadInput(`There is no result at ${full}.`);
  return full;
}

function language(): Option {
  return new Option('--lang <language>', 'of tables and report').choices(['en', 'ko']).default('en');
}

function parseCounts(text: string): number[] {
  const counts = text.split(',').map((each) => parseWhole(1, MAX_REPLICAS)(each.trim()));
  return [...new Set(counts)].sort((a, b) => a - b);
}

function parseTarget(text: string): RunOptions['against'] {
  if (text === 'compose' || text === 'local') return text;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new InvalidArgumentError('Expected compose, local or an http:// or https:// URL.');
  }
  return url;
}

function parseCpus(text: string): number {
  const cores = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!(cores === 0 || (cores >= 0.05 && cores <= 64))) {
    throw new InvalidArgumentError('Expected cores, 0.05 to 64, or 0 for no quota.');
  }
  return cores;
}

function parseTime(text: string): number {
  const [, m = 0, s = 0] = /^(?=.)(?:(\d+)m)?(?:(\d+)s)?$/.exec(text) ?? [];
  const seconds = Number(m) * 60 + Number(s);
  if (seconds < 2 || seconds > 3600)
    throw new InvalidArgumentError('Expected a time from 2s to 60m, as 16s or 2m.');
  return seconds;
}

function parseWhole(min: number, max: number): (text: string) => number {
  return (text) => {
    const number = /^\d+$/.test(text) ? Number(text) : NaN;
    if (!(number >= min && number <= max)) {
      throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
    }
    return number;
  };
}

function parsePositive(text: string): number {
  const number = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!(number > 0)) throw new InvalidArgumentError('Expected a number above 0.');
  return number;
}
