import { type Run, type Summary } from '../figures/summary.js';
import { type Language } from '../options.js';
import { latencyChart, scalingChart, type Theme, timeChart } from './charts.js';
import { headline, notes, resultTable, shareLines } from './table.js';
import { WORDS } from './words.js';

/** The report: one file, which loads nothing from anywhere, light or dark as its reader's system is. */
export function toHtml(summary: Summary, lang: Language): string {
  const words = WORDS[lang];
  const table = resultTable(summary, lang);
  const [standing = '', ...others] = notes(summary, lang);
  const top = headline(summary, lang);
  const hasTime = summary.runs.some(({ rounds }) => rounds.some(({ series }) => series.length > 0));
  const charts = [scalingChart, latencyChart, ...(hasTime ? [timeChart] : [])];
  return `<!doctype html>
<html lang="${lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escape(words.title)} · ${escape(summary.startedAt.slice(0, 16).replace('T', ' '))} UTC</title>
<style>
:root { --text: #24292f; --soft: #57606a; --line: #d0d7de; --page: #ffffff; --warm: #fff8c5; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --soft: #9198a1; --line: #3d444d; --page: #0d1117; --warm: #3a2f0b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1600px; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, 'Noto Sans KR', 'Noto Sans CJK KR', sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; } h2::first-letter { text-transform: uppercase; }
p { margin: .4rem 0; max-width: 75ch; } .soft { color: var(--soft); }
.headline { font-size: 1.3rem; font-weight: 600; margin-top: 1rem; }
.note { background: var(--warm); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; max-width: 90ch; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .84rem; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .5rem; text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; } td:last-child { white-space: normal; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 1rem; margin-top: 1.5rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; } figure svg { display: block; width: 100%; height: auto; }
.dark { display: none; }
@media (prefers-color-scheme: dark) { .light { display: none; } .dark { display: block; } }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .92rem; } dt { color: var(--soft); } dd { margin: 0; }
</style>
</head>
<body>
<h1>${escape(words.title)}</h1>
<p class="soft">${escape(summary.question)}</p>
${top === undefined ? '' : `<p class="headline">${escape(top)}</p>`}
<p class="note">${escape(standing)}</p>
<div class="wide">${tableOf(table.head, table.rows)}</div>
${others.map((line) => `<p>${escape(line)}</p>`).join('\n')}
<div class="charts">
${charts.map((chart) => figure((theme) => chart(summary, lang, theme))).join('\n')}
</div>
<h2>${escape(words.shares)}</h2>
${shareLines(summary)
  .map((line) => `<p>${escape(line)}</p>`)
  .join('\n')}
<h2>${escape(words.round)}</h2>
<div class="wide">${tableOf(...roundsOf(summary.runs, lang))}</div>
<h2>${escape(words.how)}</h2>
<p>${escape(words.glossary)}</p>
<dl>
${details(summary, lang)
  .map(([name, value]) => `<dt>${escape(name)}</dt><dd>${escape(value)}</dd>`)
  .join('\n')}
</dl>
</body>
</html>
`;
}

function figure(chart: (theme: Theme) => string): string {
  const inside = (theme: Theme): string => `<div class="${theme}">${chart(theme)}</div>`;
  return `<figure>${inside('light')}${inside('dark')}</figure>`;
}

function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join('')}</tr>`;
  return `<table><thead>${line(head, 'th')}</thead><tbody>${rows.map((row) => line(row, 'td')).join('\n')}</tbody></table>`;
}

function roundsOf(runs: readonly Run[], lang: Language): [string[], string[][]] {
  const words = WORDS[lang];
  const head = [
    words.replicas,
    words.round,
    'UTC',
    words.uploadsPerSecond,
    'p50, ms',
    'p95, ms',
    'p99, ms',
    words.errors,
  ];
  const rows = runs.flatMap(({ replicas, rounds }) =>
    rounds.map((round, index) => [
      String(replicas),
      String(index + 1),
      round.startedAt.slice(11, 19),
      round.rps.toFixed(1),
      ...[round.p50Ms, round.p95Ms, round.p99Ms].map((value) => value?.toFixed(0) ?? '-'),
      String(round.errors),
    ]),
  );
  return [head, rows];
}

function details(
  { machine, target, settings, script, startedAt, finishedAt }: Summary,
  lang: Language,
): [string, string][] {
  return [
    [
      WORDS[lang].machine,
      `${machine.cpu}, ${machine.cores} cores, ${(machine.memoryBytes / 2 ** 30).toFixed(0)} GiB, ${machine.system}`,
    ],
    ['UTC', `${startedAt.slice(0, 19).replace('T', ' ')} – ${finishedAt.slice(11, 19)}`],
    ['', `k6 ${machine.k6}, Node.js ${machine.node}`],
    ['script', `loadtest/${script}.js`],
    ['against', `${target.kind}, ${target.url}`],
    ['cpus', target.cpusPerReplica === null ? '-' : String(target.cpusPerReplica)],
    ['rounds', `${settings.rounds} × ${settings.durationSeconds} s`],
    ['warm-up', String(settings.warmUpUploads)],
    ['clients', settings.clientsPerReplica === null ? '-' : String(settings.clientsPerReplica)],
  ];
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
