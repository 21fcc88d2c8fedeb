import { hurry } from './child.js';
import { parseOptions } from './options.js';
import { Stack } from './stack.js';
import { say } from './terminal.js';

const PARENT_CHECK_MS = 100;
const SECOND_SIGNAL_MS = 300;

const options = parseOptions(process.argv.slice(3));
const stack = new Stack(options);
let stopping: Promise<void> | undefined;
let firstSignalAt: number | undefined;

/** Stops what was started. Exits with 1 if something was cut short. */
function stop(exitCode: number): void {
  process.exitCode ??= exitCode;
  stopping ??= stack.stop().then((isClean) => {
    if (!isClean) process.exitCode = 1;
    process.exit();
  });
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    const now = performance.now();
    firstSignalAt ??= now;
    // One Ctrl-C arrives twice, from the terminal and from npm.
    if (now - firstSignalAt > SECOND_SIGNAL_MS) hurry();
    stop(0);
  });
}
// Should npm be killed, nothing of ours is left running.
const { ppid } = process;
setInterval(() => {
  if (process.env['npm_lifecycle_event'] !== undefined && process.ppid !== ppid) stop(0);
}, PARENT_CHECK_MS).unref();
stack.onExit((name) => {
  if (stopping === undefined) say(`${name} has ended; everything is stopped.`);
  stop(1);
});

try {
  await stack.start();
  const description = await stack.describe();
  if (stopping === undefined) process.stdout.write(description);
} catch (error) {
  if (stopping === undefined) say(error instanceof Error ? error.message : String(error));
  stop(1);
}
