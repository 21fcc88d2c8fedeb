import { type Command, CommanderError } from 'commander';
import { EnvError } from '#env';
import { describe, NoStoreError } from './store.js';

/** For scripts: all is well; the store is in trouble, or lacks something; the call or the settings are wrong. */
export const EXIT = { ok: 0, trouble: 1, usage: 2 } as const;

/** As shells have it for one that a Ctrl-C ended. */
const INTERRUPTED = 130;

/** What a program is started with. */
export interface Call {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Aborted when the program is to clear up and end. */
  readonly signal: AbortSignal;
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
}

/** Resolves with the exit code. */
export type Program = (call: Call) => Promise<number>;

/** As the process itself: the first Ctrl-C (or SIGTERM) lets it clear up, the second ends it at once. */
export async function runAsProcess(program: Program): Promise<void> {
  // Said once, in the README, is enough.
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';
  const interrupted = new AbortController();
  const stop = () => {
    if (interrupted.signal.aborted) process.exit(INTERRUPTED);
    interrupted.abort(new Error('interrupted'));
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  process.exitCode = await run(program, {
    args: process.argv.slice(2),
    env: process.env,
    signal: interrupted.signal,
    print: (text) => process.stdout.write(text),
    complain: (text) => process.stderr.write(text),
  });
}

/** Resolves with the exit code, whatever happens, having said what was wrong. */
export async function run(program: Program, call: Call): Promise<number> {
  try {
    const code = await program(call);
    return call.signal.aborted ? INTERRUPTED : code;
  } catch (error) {
    // It has said what is wrong, or shown its help.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    call.complain(`${error instanceof EnvError ? error.message : describe(error)}\n`);
    if (call.signal.aborted) return INTERRUPTED;
    return error instanceof EnvError || error instanceof NoStoreError ? EXIT.usage : EXIT.trouble;
  }
}

/** The command with the call's arguments in its `opts()`. Throws a CommanderError in place of ending the process. */
export function parseArguments(command: Command, call: Call): Command {
  return command
    .exitOverride()
    .configureOutput({ writeOut: call.print, writeErr: call.complain })
    .helpOption('--help', 'show this')
    .allowExcessArguments(false)
    .parse(call.args, { from: 'user' });
}
