import { CustomChart, LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent } from 'echarts/components';
import * as echarts from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import { type Run, type Summary } from '../figures/summary.js';
import { type Language } from '../options.js';
import { WORDS } from './words.js';

echarts.use([
  CustomChart,
  LineChart,
  GridComponent,
  LegendComponent,
  MarkLineComponent,
  TitleComponent,
  SVGRenderer,
]);

export type Theme = 'light' | 'dark';

const WIDTH = 760;
const HEIGHT = 420;
// Told apart also by those who don't see red or green: Okabe and Ito's colours.
const COLORS = {
  light: {
    text: '#24292f',
    line: '#d0d7de',
    background: '#ffffff',
    series: ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'],
    ideal: '#8c959f',
    mark: '#b35900',
  },
  dark: {
    text: '#e6edf3',
    line: '#3d444d',
    background: '#0d1117',
    series: ['#56b4e9', '#e69f00', '#3fc39a', '#e29bc4', '#f0e442', '#8fb7ff'],
    ideal: '#9198a1',
    mark: '#ffb454',
  },
} as const;
const FONT =
  "system-ui, 'Noto Sans KR', 'Noto Sans CJK KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif";

/** RPS over replicas, with its intervals and, where the runs are scale-out, the ideal line. As SVG. */
export function scalingChart(summary: Summary, lang: Language, theme: Theme): string {
  const words = WORDS[lang];
  const colors = COLORS[theme];
  const { runs, target } = summary;
  const one = runs.find(({ replicas, throttled }) => replicas === 1 && throttled.length === 0);
  const most = Math.max(...runs.map(({ replicas }) => replicas));
  const counts = Array.from({ length: most + 1 }, (_, count) => count);
  const top = Math.max(...runs.map(({ rps, rpsPlusMinus }) => rps + (rpsPlusMinus ?? 0)));
  return draw(theme, {
    title: title(words.throughput, theme),
    legend: legend(theme),
    grid: GRID,
    xAxis: {
      ...axis(words.replicas, theme),
      min: 0,
      max: most + 0.5,
      interval: 1,
      axisLabel: { ...label(theme), formatter: whole },
    },
    yAxis: { ...axis(words.uploadsPerSecond, theme), min: 0 },
    series: [
      ...(one && target.isScaleOut
        ? [
            {
              name: words.ideal,
              type: 'line' as const,
              symbol: 'none',
              lineStyle: { type: 'dashed' as const, color: colors.ideal },
              itemStyle: { color: colors.ideal },
              data: counts.map((count) => [count, count * one.rps]),
            },
          ]
        : []),
      {
        name: words.measured,
        type: 'line',
        symbol: 'circle',
        symbolSize: 9,
        lineStyle: { color: colors.series[0], width: 2 },
        itemStyle: { color: colors.series[0] },
        data: runs.map(({ replicas, rps }) => [replicas, rps]),
        label: {
          show: true,
          position: 'right',
          distance: 10,
          color: colors.text,
          fontFamily: FONT,
          formatter: ({ dataIndex }: { dataIndex: number }) => runs[dataIndex]?.rps.toFixed(1) ?? '',
        },
      },
      {
        name: words.error,
        type: 'custom',
        itemStyle: { color: colors.series[1] },
        renderItem: errorBar(colors.series[1]),
        data: runs.flatMap(({ replicas, rps, rpsPlusMinus }) =>
          rpsPlusMinus === null
            ? []
            : [[replicas, Math.max(0, rps - rpsPlusMinus), Math.min(rps + rpsPlusMinus, 3 * top)]],
        ),
        encode: { x: 0, y: [1, 2] },
        z: 3,
      },
    ],
  });
}

/** Percentiles of the latency over replicas, as SVG. */
export function latencyChart({ runs }: Summary, lang: Language, theme: Theme): string {
  const words = WORDS[lang];
  const colors = COLORS[theme];
  const percentiles = [
    ['p50', (run: Run) => run.p50Ms],
    ['p95', (run: Run) => run.p95Ms],
    ['p99', (run: Run) => run.p99Ms],
  ] as const;
  return draw(theme, {
    title: title(words.latency, theme),
    legend: legend(theme),
    grid: GRID,
    xAxis: {
      ...axis(words.replicas, theme),
      min: 0,
      max: Math.max(...runs.map(({ replicas }) => replicas)) + 0.5,
      interval: 1,
      axisLabel: { ...label(theme), formatter: whole },
    },
    yAxis: { ...axis('ms', theme), min: 0 },
    series: percentiles.map(([name, of], index) => ({
      name,
      type: 'line' as const,
      symbol: ['circle', 'rect', 'triangle'][index],
      symbolSize: 9,
      lineStyle: { color: colors.series[index], width: 2 },
      itemStyle: { color: colors.series[index] },
      data: runs.flatMap((run) => {
        const value = of(run);
        return value === null ? [] : [[run.replicas, value]];
      }),
    })),
  });
}

/** What was answered each second: a line for each number of replicas (the last round of each), and what was done to them. */
export function timeChart({ runs }: Summary, lang: Language, theme: Theme): string {
  const words = WORDS[lang];
  const colors = COLORS[theme];
  return draw(theme, {
    title: title(words.overTime, theme),
    legend: legend(theme),
    grid: GRID,
    xAxis: { ...axis(words.seconds, theme), min: 0 },
    yAxis: { ...axis(words.uploadsPerSecond, theme), min: 0 },
    series: runs.flatMap(({ replicas, rounds }, index) => {
      const round = rounds.at(-1);
      if (round === undefined || round.series.length === 0) return [];
      const color = colors.series[index % colors.series.length];
      return [
        {
          name: `${words.replicas}: ${replicas}`,
          type: 'line' as const,
          step: 'end' as const,
          symbol: 'none',
          lineStyle: { color, width: 2 },
          itemStyle: { color },
          // Each lasts until the next one, the last one until its own end.
          data: round.series.flatMap(({ second, seconds, answered }, number) =>
            [second, ...(number === round.series.length - 1 ? [second + seconds] : [])].map((at) => [
              at,
              answered / seconds,
            ]),
          ),
          markLine: {
            symbol: 'none',
            silent: true,
            animation: false,
            lineStyle: { color: colors.mark, type: 'solid' as const },
            label: { color: colors.text, fontFamily: FONT, textBorderWidth: 0, position: 'insideEndTop' },
            data: round.marks.map(({ second, what, replica }) => ({
              xAxis: second,
              label: { formatter: words[what](replica) },
            })),
          },
        },
      ];
    }),
  });
}

const GRID = { left: 64, right: 28, top: 76, bottom: 52 };

function draw(theme: Theme, option: echarts.EChartsCoreOption): string {
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT });
  try {
    chart.setOption({ animation: false, silent: true, backgroundColor: COLORS[theme].background, ...option });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

function title(text: string, theme: Theme): object {
  return {
    text,
    left: 12,
    top: 10,
    textStyle: { color: COLORS[theme].text, fontFamily: FONT, fontSize: 16 },
  };
}

function legend(theme: Theme): object {
  return { left: 12, top: 40, itemGap: 24, textStyle: { color: COLORS[theme].text, fontFamily: FONT } };
}

function axis(name: string, theme: Theme): object {
  const colors = COLORS[theme];
  return {
    type: 'value',
    name,
    nameLocation: 'middle',
    nameGap: 36,
    nameTextStyle: { color: colors.text, fontFamily: FONT },
    axisLabel: label(theme),
    axisLine: { lineStyle: { color: colors.ideal } },
    splitLine: { lineStyle: { color: colors.line } },
  };
}

function label(theme: Theme): object {
  return { color: COLORS[theme].text, fontFamily: FONT };
}

function whole(value: number): string {
  return Number.isInteger(value) ? String(value) : '';
}

interface Api {
  value(dimension: number): number;
  coord(point: [number, number]): [number, number];
}

/** A line from low to high, with a cap at each end. */
function errorBar(color: string) {
  return (_: unknown, api: Api) => {
    const [x, low] = api.coord([api.value(0), api.value(1)]);
    const [, high] = api.coord([api.value(0), api.value(2)]);
    const style = { stroke: color, lineWidth: 2 };
    const line = (x1: number, y1: number, x2: number, y2: number) => ({
      type: 'line',
      shape: { x1, y1, x2, y2 },
      style,
    });
    return {
      type: 'group',
      children: [line(x, low, x, high), line(x - 6, low, x + 6, low), line(x - 6, high, x + 6, high)],
    };
  };
}
