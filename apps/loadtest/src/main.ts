import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CommanderError } from 'commander';
import { z } from 'zod';
import { rewrites, say, show } from '../../local/src/terminal.js';
import { compare } from './figures/compare.js';
import { forecast } from './figures/forecast.js';
import { type Summary, summarySchema } from './figures/summary.js';
import { K6 } from './k6.js';
import { type Asked, parse, ROOT, type RunOptions, summaryPath, userPath } from './options.js';
import { BadInput, messageOf } from './problem.js';
import { comparisonText, forecastText, resultText } from './report/table.js';
import { ResultsFolder } from './results-folder.js';
import { measure } from './run.js';
import { ComposeStack } from './stack/compose.js';
import { hasDocker } from './stack/docker.js';
import { LocalStack } from './stack/local.js';
import { type Stack } from './stack/stack.js';
import { UrlStack } from './stack/url.js';

const FAILED = 1;
const BAD_INPUT = 2;
const PARENT_CHECK_MS = 200;

process.exitCode = await main();

async function main(): Promise<number> {
  try {
    return await carryOut(parse(process.argv.slice(3)));
  } catch (error) {
    // Commander has said what is wrong; asked for help, it has helped.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : BAD_INPUT;
    say(messageOf(error));
    return error instanceof BadInput ? BAD_INPUT : FAILED;
  }
}

async function carryOut(asked: Asked): Promise<number> {
  switch (asked.command) {
    case 'run':
      return run(asked.options);
    case 'compare': {
      const [before, after] = asked.files.map(readSummary) as [Summary, Summary];
      process.stdout.write(comparisonText(compare(before, after), asked.lang));
      return 0;
    }
    case 'forecast': {
      const summary = readSummary(asked.file);
      const found = forecast(summary, asked.options);
      process.stdout.write(forecastText(summary, asked.options, found, asked.options.lang));
      return found.refusals.length > 0 ? FAILED : 0;
    }
    case 'none':
      return 0;
  }
}

async function run(options: RunOptions): Promise<number> {
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
  const folder = ResultsFolder.make(
    options.out === undefined ? join(ROOT, 'loadtest/results', time) : userPath(options.out),
  );
  let isWritten = false;
  let cleanUp = (): Promise<void> => Promise.resolve();
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopping ??= cleanUp());
  const interrupt = (): void => {
    if (stopping === undefined) say('Stopping …');
    void stop().finally(() => {
      if (!isWritten) folder.discard();
      process.exit(FAILED);
    });
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  // Whoever reads what we say may be gone before it is all taken down.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  // Should npm be killed, nothing of ours is left running.
  const { ppid } = process;
  setInterval(() => {
    if (process.env['npm_lifecycle_event'] !== undefined && process.ppid !== ppid) interrupt();
  }, PARENT_CHECK_MS).unref();
  try {
    const k6 = await K6.find();
    const stack = await stackOf(options);
    cleanUp = async () => {
      await k6.stop();
      await stack.stop();
    };
    const summary = await measure(options, stack, k6, {
      say,
      // A file keeps only what stays.
      show: rewrites ? show : () => undefined,
    });
    await write(folder, summary, options);
    isWritten = true;
    process.stdout.write(resultText(summary, options.lang));
    process.stdout.write(`  ${join(folder.path, 'report.html')}\n`);
    return 0;
  } finally {
    await stop();
    if (!isWritten) folder.discard();
  }
}

async function stackOf({ against, cpus, replicas, script }: RunOptions): Promise<Stack> {
  if (against instanceof URL) return new UrlStack(against.href.replace(/\/+$/, ''));
  // A stack of ours has the cache that this one asks about.
  if (script === 'cached-reads') process.env['LB_CACHE'] ||= 'on';
  const kind = against ?? ((await hasDocker()) ? 'compose' : 'local');
  const most = Math.max(...(replicas ?? [1]));
  say(
    kind === 'compose'
      ? `Against docker compose, ${most} replicas at most, ${cpus === 0 ? 'without a quota' : `${cpus} of a core each while measured`}. Building and starting …`
      : `Against npm start, ${most} replicas at most, which share this machine: this is not scale-out${against === undefined ? ' (Docker, which could give each its share, does not answer)' : ''}. Starting …`,
  );
  return kind === 'compose' ? new ComposeStack(cpus === 0 ? null : cpus) : new LocalStack();
}

async function write(folder: ResultsFolder, summary: Summary, { lang }: RunOptions): Promise<void> {
  // They take longer to load than all the rest, and what is wrong is to be said soon.
  const { latencyChart, scalingChart } = await import('./report/charts.js');
  const { toHtml } = await import('./report/html.js');
  const { hasHangul, toPng } = await import('./report/png.js');
  folder.write('summary.json', `${JSON.stringify(summary, null, 2)}\n`);
  folder.write('report.html', toHtml(summary, lang));
  // A picture has the fonts of the machine that draws it.
  const pngLang = lang === 'ko' && !(await hasHangul()) ? 'en' : lang;
  if (pngLang !== lang) say('This machine has no Korean font: the PNG charts are in English.');
  for (const [name, chart] of Object.entries({ scaling: scalingChart, latency: latencyChart })) {
    folder.write(`${name}.svg`, chart(summary, lang, 'light'));
    folder.write(`${name}.png`, await toPng(chart(summary, pngLang, 'light')));
  }
}

/** @throws BadInput for what is no result */
function readSummary(path: string): Summary {
  const file = summaryPath(path);
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new BadInput(`${file} can't be read as JSON: ${messageOf(error)}`);
  }
  const parsed = summarySchema.safeParse(content);
  if (!parsed.success) {
    throw new BadInput(`${file} is no result of npm run loadtest:\n${z.prettifyError(parsed.error)}`);
  }
  return parsed.data;
}
