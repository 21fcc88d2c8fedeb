import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';

const ROOT = resolve(import.meta.dirname, '../../../..');
/** Each takes some 140 MB. */
const MAX_REPLICAS = 64;
const DATA = [
  '--data <dir>',
  'where the embedded object store keeps its objects',
  parseFolder,
  '.naru',
] as const;

export interface Options {
  readonly port: number;
  /** Processes of the API behind nginx; without it, one and no nginx. */
  readonly replicas?: number;
  /** How nginx chooses among them; without it, as LB_ALGORITHM says. */
  readonly algorithm?: string;
  /** Where the embedded store keeps its objects. */
  readonly data: string;
  /** An S3 endpoint in place of the embedded store. */
  readonly store?: string;
}

export interface ScaleOptions {
  readonly replicas: number;
  /** Of the `npm start` that is meant. */
  readonly data: string;
}

/** Prints what is wrong and exits, as commander does, when an option is bad. */
export function parseOptions(args: readonly string[]): Options {
  const command = new Command('npm start --')
    .description(
      'Naru on this machine: one API replica and, unless --store names another, an embedded object store.',
    )
    .option('--port <port>', 'the port to serve on', parsePort, 8080)
    .option('--replicas <count>', 'so many API replicas, behind the nginx of this machine', parseCount)
    .addOption(
      new Option(
        '--algorithm <name>',
        'with --replicas: how nginx chooses one (least_time is in commercial nginx only; least_conn is the nearest)',
      ).choices(['round_robin', 'least_conn', 'ip_hash', 'hash', 'random']),
    )
    .option(...DATA)
    .option(
      '--store <url>',
      'an S3 endpoint in place of the embedded one; credentials come from the environment',
      parseUrl,
    )
    .helpOption('--help', 'show this')
    .allowExcessArguments(false)
    .showHelpAfterError('(npm start -- --help lists the options)')
    .parse(args, { from: 'user' });
  const options = command.opts<Options>();
  if (options.algorithm !== undefined && options.replicas === undefined) {
    command.error(
      'error: --algorithm needs --replicas: without it there is one replica, and no nginx to choose.',
    );
  }
  const unused = unusedSettings(options, process.env);
  if (unused.length > 0) {
    command.error(
      options.replicas === undefined
        ? `error: ${unused.join(', ')}: a setting of nginx, which there is only with --replicas.`
        : `error: ${unused.join(', ')}: npm start sets it itself; use --port and --replicas.`,
    );
  }
  return options;
}

/** Settings of deploy/nginx/balancer.sh that would do nothing, in silence. */
function unusedSettings({ replicas }: Options, environment: NodeJS.ProcessEnv): string[] {
  const set = Object.keys(environment).filter((name) => name.startsWith('LB_') && environment[name]);
  return replicas === undefined
    ? set
    : set.filter((name) => name === 'LB_PORT' || name.startsWith('LB_REPLICAS'));
}

/** Of `npm run scale -- COUNT`. */
export function parseScaleOptions(args: readonly string[]): ScaleOptions {
  const command = new Command('npm run scale --')
    .description(
      'Adds or removes API replicas of a running npm start -- --replicas, without losing a request.',
    )
    .argument('<count>', 'how many there shall be', parseCount)
    .option(...DATA)
    .helpOption('--help', 'show this')
    .allowExcessArguments(false)
    .showHelpAfterError('(for example: npm run scale -- 4)')
    .parse(args, { from: 'user' });
  return { replicas: command.processedArgs[0] as number, ...command.opts<{ data: string }>() };
}

/** Relative to the repository, wherever npm was called. */
export function dataFolder(data: string): string {
  return resolve(ROOT, data);
}

/** One level after the other: below /proc Node's own recursion never ends. Throws when it can't be had or written. */
export function makeFolder(folder: string): void {
  const make = (path: string) => {
    if (existsSync(path)) return;
    make(dirname(path));
    mkdirSync(path);
  };
  try {
    make(folder);
    accessSync(folder, constants.W_OK | constants.X_OK);
    if (!statSync(folder).isDirectory()) throw Object.assign(new Error(), { code: 'ENOTDIR' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(
      `--data: ${folder} can't be made or written (${code ?? 'error'}); choose another folder.`,
      {
        cause: error,
      },
    );
  }
}

function parsePort(text: string): number {
  return parseNumber(text, 65_535);
}

/** @throws InvalidArgumentError */
export function parseCount(text: string): number {
  return parseNumber(text, MAX_REPLICAS);
}

function parseFolder(text: string): string {
  if (text === '') throw new InvalidArgumentError('Expected a folder.');
  return text;
}

function parseNumber(text: string, max: number): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < 1 || number > max) {
    throw new InvalidArgumentError(`Expected a whole number from 1 to ${max}.`);
  }
  return number;
}

function parseUrl(text: string): string {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new InvalidArgumentError('Expected an http:// or https:// URL.');
  }
  return text;
}
