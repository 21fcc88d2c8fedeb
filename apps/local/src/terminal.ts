const CLEAR_LINE = '\x1b[K';

/** Whether a line can take the place of the last one. */
export const rewrites = process.stdout.isTTY && !process.env['CI'] && process.env['TERM'] !== 'dumb';

/** What has to be known: it stays. */
export function say(line: string): void {
  process.stderr.write(`${rewrites ? CLEAR_LINE : ''}${line}\n`);
}

/** What changes all the time. */
export function show(line: string): void {
  // The cursor stays in front, so that whatever is written next takes the line's place.
  if (rewrites) process.stdout.write(`${CLEAR_LINE}${line.slice(0, process.stdout.columns - 1)}\r`);
  else process.stdout.write(`${line}\n`);
}
