import { Command, InvalidArgumentError } from 'commander';

export interface Options {
  readonly port: number;
  /** Where the embedded store keeps its objects. */
  readonly data: string;
  /** An S3 endpoint in place of the embedded store. */
  readonly store?: string;
}

/** Prints what is wrong and exits, as commander does, when an option is bad. */
export function parseOptions(args: readonly string[]): Options {
  return new Command('npm start --')
    .description(
      'Naru on this machine: one API replica and, unless --store names another, an embedded object store.',
    )
    .option('--port <port>', 'the port to serve on', parsePort, 8080)
    .option('--data <dir>', 'where the embedded object store keeps its objects', '.naru')
    .option(
      '--store <url>',
      'an S3 endpoint in place of the embedded one; credentials come from the environment',
      parseUrl,
    )
    .helpOption('--help', 'show this')
    .allowExcessArguments(false)
    .showHelpAfterError('(npm start -- --help lists the options)')
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) {
    throw new InvalidArgumentError('Expected a whole number from 1 to 65535.');
  }
  return port;
}

function parseUrl(text: string): string {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new InvalidArgumentError('Expected an http:// or https:// URL.');
  }
  return text;
}
