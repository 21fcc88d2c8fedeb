import { latencyChart, scalingChart, timeChart } from '../src/report/charts.js';
import { toHtml } from '../src/report/html.js';
import { resultText } from '../src/report/table.js';
import { toPng } from '../src/report/png.js';
import { round, summary } from './examples.js';

const MEASURED = summary({
  1: [9, 10, 11],
  3: [28, 30, round(32, { marks: [{ second: 6, what: 'killed', replica: 'b' }] })],
});
const SHARED = summary(
  { 1: [9, 10], 3: [12, 13] },
  { kind: 'local', isScaleOut: false, cpusPerReplica: null },
);

describe('the report', () => {
  it('loads nothing from anywhere', () => {
    const html = toHtml(MEASURED, 'en');
    const addresses = [...html.matchAll(/(?:src|href|url|xlink:href)\s*[=(]\s*["']?([^"')\s>]+)/g)].map(
      ([, to]) => to,
    );
    expect(addresses.filter((to) => !to!.startsWith('#'))).toEqual([]);
    expect(html).not.toMatch(/<script|<link|@import/);
  });

  it('has each chart for light and for dark', () => {
    const html = toHtml(MEASURED, 'en');
    expect(html.match(/<div class="light"><svg/g)).toHaveLength(3);
    expect(html.match(/<div class="dark"><svg/g)).toHaveLength(3);
  });

  it('lets nothing that was measured become HTML', () => {
    expect(toHtml(MEASURED, 'en')).toContain('How many &#60;photographs&#62;?');
  });

  it('speaks Korean', () => {
    const html = toHtml(MEASURED, 'ko');
    expect(html).toContain('<html lang="ko">');
    expect(html).toContain('레플리카 3개는 한 개의 3.00배를 처리합니다');
  });
});

describe('what shared a machine without quotas', () => {
  for (const [lang, words] of [
    ['en', 'NOT scale-out'],
    ['ko', '스케일 아웃이 아닙니다'],
  ] as const) {
    it(`is not called scale-out (${lang})`, () => {
      for (const text of [resultText(SHARED, lang), toHtml(SHARED, lang)]) {
        expect(text).toContain(words);
        expect(text).not.toContain('1.32');
        expect(text).not.toContain(lang === 'en' ? 'times what one does' : '배를 처리합니다');
      }
      expect(scalingChart(SHARED, lang, 'light')).not.toContain(lang === 'en' ? 'ideal' : '이상');
    });
  }
});

it('says that a run the generator held back is no result', () => {
  const throttled = summary({ 1: [10], 2: [round(20, { throttled: ['dropped iterations: 3'] })] });
  expect(resultText(throttled, 'en')).toContain(
    '2: NOT A RESULT: the generator held the load back (dropped iterations: 3)',
  );
});

describe('the charts', () => {
  it('show each measurement, the ideal line and the faults', () => {
    expect(scalingChart(MEASURED, 'en', 'light')).toMatch(/10\.0.*30\.0/s);
    expect(scalingChart(MEASURED, 'en', 'light')).toContain('ideal: N times one');
    expect(latencyChart(MEASURED, 'en', 'light')).toContain('p99');
    expect(timeChart(MEASURED, 'en', 'dark')).toContain('b killed');
  });

  it('are to be had as PNG', async () => {
    const png = await toPng(scalingChart(MEASURED, 'en', 'light'));
    expect(png.subarray(0, 8)).toEqual(Buffer.from('89504e470d0a1a0a', 'hex'));
    expect(png.readUInt32BE(16)).toBeGreaterThanOrEqual(1500);
  });
});
