import { type Change } from '../figures/compare.js';
import { type Refusal } from '../figures/forecast.js';
import { type Run } from '../figures/summary.js';
import { type Language } from '../options.js';

/** What tables and the report say; figures come in as they are to be shown. */
export interface Words {
  readonly title: string;
  readonly replicas: string;
  readonly throughput: string;
  readonly uploadsPerSecond: string;
  readonly ideal: string;
  readonly measured: string;
  readonly error: string;
  readonly latency: string;
  readonly overTime: string;
  readonly seconds: string;
  readonly errors: string;
  readonly availability: string;
  readonly connections: string;
  readonly cpu: string;
  readonly shares: string;
  readonly speedup: string;
  readonly efficiency: string;
  readonly saturated: string;
  readonly parts: Record<Run['saturated'][number], string>;
  readonly nothing: string;
  readonly throttled: string;
  readonly missed: (thresholds: string) => string;
  readonly killed: (replica: string) => string;
  readonly started: (replica: string) => string;
  readonly round: string;
  readonly quota: (cores: number) => string;
  readonly noQuota: string;
  readonly machineFull: (replicas: string) => string;
  readonly url: string;
  readonly network: (share: string, most: number) => string;
  readonly machine: string;
  readonly how: string;
  readonly headline: (replicas: number, speedup: string) => string;
  readonly glossary: string;
  readonly metrics: Record<Change['metric'], string>;
  readonly verdicts: Record<Change['verdict'], string>;
  readonly change: string;
  readonly differing: (name: string, before: string, after: string) => string;
  readonly unmatched: (counts: string) => string;
  readonly nothingChanged: string;
  readonly each95: string;
  readonly refusal: (refusal: Refusal) => string;
  readonly noAnswer: string;
  readonly answer: (load: string, best: number, low: number, high: string) => string;
  readonly load: (rps: number, p95?: number) => string;
  readonly ofSize: (cores: number) => string;
  readonly fit: string;
  readonly contention: string;
  readonly coherence: string;
  readonly one: string;
  readonly link: (link: number, rps: string, balancers: number) => string;
  readonly store: (rps: string, cores: number, isTooMuch: boolean) => string;
  readonly assumption: string;
  readonly forecast: string;
}

const number = (value: number, digits = 1): string => value.toFixed(digits);

export const WORDS: Record<Language, Words> = {
  en: {
    title: 'Naru under load',
    replicas: 'replicas',
    throughput: 'Throughput by replicas',
    uploadsPerSecond: 'uploads per second',
    ideal: 'ideal: N times one',
    measured: 'measured',
    error: '95 % interval',
    latency: 'Latency by replicas',
    overTime: 'Throughput over time',
    seconds: 'seconds',
    errors: 'errors',
    availability: 'availability',
    connections: 'connections/s (open)',
    cpu: 'CPU per upload, ms',
    shares: 'share by replica',
    speedup: 'speed-up',
    efficiency: 'efficiency',
    saturated: 'saturated',
    parts: {
      replicas: 'replica CPU',
      balancer: 'balancer',
      store: 'store',
      generator: 'generator',
      network: 'network',
      machine: 'the machine',
    },
    nothing: 'nothing',
    throttled: 'NOT A RESULT: the generator held the load back',
    missed: (thresholds) => `Missed thresholds: ${thresholds}`,
    killed: (replica) => `${replica} killed`,
    started: (replica) => `${replica} back`,
    round: 'round',
    quota: (cores) =>
      `Scale-out on one machine: each replica had a quota of ${cores} of a core, so that one more brings one more share of CPU, as a machine of its own would. Compare the ratios; the rates are those of ${cores} of a core.`,
    noQuota:
      'NOT scale-out: the replicas had no CPU quota, and shared this machine with each other, with nginx, the store and the generator. More replicas bring no more CPU here, so their number says nothing about how Naru scales. Take --against compose for that.',
    machineFull: (replicas) =>
      `With ${replicas} replicas the whole machine was busy, so that not the quotas alone bound them: take a smaller --cpus, fewer replicas, or an idle machine.`,
    url: 'Measured as it was, from the outside. What its replicas, balancer and store used can’t be seen from here.',
    network: (share, most) =>
      `The most here was ${share} % of what a balancer with 1 Gbit/s carries, which is about ${most} such uploads a second however many replicas there are.`,
    machine: 'Machine',
    how: 'How it was measured',
    headline: (replicas, speedup) => `${replicas} replicas carry ${speedup} times what one does`,
    glossary:
      'Throughput is the mean of the rounds with its 95 % interval (Student’s t); percentiles are the median of the rounds; availability counts as many nines as so many requests can show. “CPU per upload” is replicas + balancer + store + generator.',
    metrics: {
      rps: 'uploads/s',
      p50Ms: 'p50, ms',
      p95Ms: 'p95, ms',
      p99Ms: 'p99, ms',
      errors: 'errors a round',
      cpuMsPerUpload: 'replica CPU per upload, ms',
    },
    verdicts: { better: 'BETTER', worse: 'WORSE', noise: 'within noise', unknown: 'too few rounds' },
    change: 'change',
    differing: (name, before, after) => `NOTE  they differ in ${name}: ${before}, then ${after}`,
    unmatched: (counts) => `NOTE  only one of them has ${counts} replicas`,
    nothingChanged: 'Nothing changed beyond noise.',
    each95:
      'Each figure by itself at 95 %, by Welch’s interval over the rounds: of twenty that stay, one seems to change.',
    refusal: (refusal) => {
      switch (refusal.why) {
        case 'not-scale-out':
          return 'not-scale-out: the replicas had no CPU quota of their own, so that their number changed nothing. Measure with --against compose.';
        case 'throttled':
          return `throttled: the generator held the load back with ${refusal.replicas.join(', ')} replicas. Measure from a machine of its own.`;
        case 'errors':
          return `errors: more than 0.1 % of the requests failed with ${refusal.replicas.join(', ')} replicas.`;
        case 'machine-full':
          return `machine-full: with ${refusal.replicas.join(', ')} replicas the whole machine was busy, so that not the quotas alone bound them. Take a smaller --cpus, or an idle machine.`;
        case 'too-few-counts':
          return `too-few-counts: ${refusal.counts} numbers of replicas were measured, and three coefficients take three. Measure with --replicas 1,2,3,4.`;
        case 'too-few-points':
          return `too-few-points: ${refusal.points} measurements leave nothing to tell the noise by. Measure with more --rounds.`;
        case 'poor-fit':
          return refusal.rSquared === null
            ? 'poor-fit: every measurement is the same, which has no R².'
            : `poor-fit: the law explains ${number(100 * refusal.rSquared, 0)} % of what was measured (R²), and 90 % is the least. Measure with more --rounds.`;
        case 'alpha-over-1':
          return `alpha-over-1: a contention of ${number(refusal.alpha, 2)} is more than all of the work; something else than the replicas was measured.`;
        case 'never':
          return `never: by the law no number of replicas carries it; the most is ${number(refusal.most)} uploads a second, with ${refusal.at}.`;
        case 'peak-unseen':
          return `peak-unseen: the law guesses at ${number(refusal.most)} uploads a second at most, with ${refusal.at} replicas, more than twice the ${refusal.measured} that were measured; whether more carry it can't be told. Measure more of them.`;
        case 'extrapolated':
          return `extrapolated: ${refusal.replicas} replicas are more than twice the ${refusal.measured} that were measured. Measure more of them.`;
        case 'never-so-fast':
          return `never-so-fast: by the law ${refusal.replicas} replicas carry it, but no number of them under that p95. Allow a longer one, or give each more CPU.`;
        case 'p95-too-short':
          return `p95-too-short: on replicas like these no p95 under ${number(refusal.least, 0)} ms is to be had, however many there are. Give each more CPU.`;
      }
    },
    noAnswer: 'The measurements support no answer:',
    answer: (load, best, low, high) => `${load}: ${best} replicas (95 %: ${low} to ${high})`,
    load: (rps, p95) => `${rps} uploads a second${p95 === undefined ? '' : ` at a p95 under ${p95} ms`}`,
    ofSize: (cores) => `Replicas are such as were measured: ${cores} of a core each.`,
    fit: 'Universal Scalability Law',
    contention: 'contention α',
    coherence: 'coherence β',
    one: 'one replica λ, uploads/s',
    link: (link, rps, balancers) =>
      `Network: a balancer with ${link} Gbit/s carries at most ${rps} such uploads a second, whatever N is; this load takes ${balancers} such balancer${balancers === 1 ? '' : 's'}.`,
    store: (rps, cores, isTooMuch) =>
      `Store: the one that was measured would use up ${cores} cores at about ${rps} uploads a second (computed from its CPU per upload)${isTooMuch ? '. This load is more: it takes a larger store' : ''}.`,
    assumption:
      'The p95 assumes arrivals at random and a queue for each replica (M/M/1): p95 = ln 20 × S ÷ (1 − load). loadtest/breaking-point.js measures it.',
    forecast: 'Forecast',
  },
  ko: {
    title: '부하 속의 나루',
    replicas: '레플리카',
    throughput: '레플리카 수별 처리량',
    uploadsPerSecond: '초당 업로드',
    ideal: '이상: 한 개의 N배',
    measured: '측정값',
    error: '95 % 구간',
    latency: '레플리카 수별 지연 시간',
    overTime: '시간별 처리량',
    seconds: '초',
    errors: '오류',
    availability: '가용성',
    connections: '초당 연결 (동시)',
    cpu: '업로드당 CPU, ms',
    shares: '레플리카별 몫',
    speedup: '속도 향상',
    efficiency: '효율',
    saturated: '포화',
    parts: {
      replicas: '레플리카 CPU',
      balancer: '로드 밸런서',
      store: '스토리지',
      generator: '부하 생성기',
      network: '네트워크',
      machine: '기계 전체',
    },
    nothing: '없음',
    throttled: '결과 아님: 부하 생성기가 부하를 다 만들지 못했습니다',
    missed: (thresholds) => `지키지 못한 기준: ${thresholds}`,
    killed: (replica) => `${replica} 강제 종료`,
    started: (replica) => `${replica} 복귀`,
    round: '회차',
    quota: (cores) =>
      `한 대의 기계에서 잰 스케일 아웃: 레플리카마다 CPU를 ${cores} 코어로 제한해, 하나를 늘리면 기계를 한 대 늘린 것처럼 CPU 몫도 하나 늘어납니다. 비율을 보십시오. 절댓값은 ${cores} 코어의 값입니다.`,
    noQuota:
      '스케일 아웃이 아닙니다: 레플리카에 CPU 제한이 없어 서로, 그리고 nginx, 스토리지, 부하 생성기와 이 기계를 나눠 썼습니다. 여기서는 레플리카를 늘려도 CPU가 늘지 않으므로, 그 수는 나루가 어떻게 확장되는지 말해 주지 않습니다. 그것을 보려면 --against compose를 쓰십시오.',
    machineFull: (replicas) =>
      `레플리카 ${replicas}개일 때 기계 전체가 바빠, CPU 제한만이 한계는 아니었습니다. 더 작은 --cpus, 더 적은 레플리카, 한가한 기계로 측정하십시오.`,
    url: '바깥에서, 있는 그대로 측정했습니다. 레플리카, 로드 밸런서, 스토리지가 쓴 CPU는 여기서 볼 수 없습니다.',
    network: (share, most) =>
      `가장 많을 때가 1 Gbit/s 로드 밸런서가 나르는 양의 ${share} %였습니다. 그 한계는 레플리카가 몇 개든 초당 약 ${most}건입니다.`,
    machine: '기계',
    how: '측정 방법',
    headline: (replicas, speedup) => `레플리카 ${replicas}개는 한 개의 ${speedup}배를 처리합니다`,
    glossary:
      '처리량은 회차 평균과 95 % 구간(스튜던트 t), 백분위수는 회차의 중앙값이고, 가용성의 9의 개수는 이만한 요청 수로 보일 수 있는 만큼입니다. “업로드당 CPU”는 레플리카 + 로드 밸런서 + 스토리지 + 부하 생성기입니다.',
    metrics: {
      rps: '초당 업로드',
      p50Ms: 'p50, ms',
      p95Ms: 'p95, ms',
      p99Ms: 'p99, ms',
      errors: '회차당 오류',
      cpuMsPerUpload: '업로드당 레플리카 CPU, ms',
    },
    verdicts: { better: '좋아짐', worse: '나빠짐', noise: '오차 범위', unknown: '회차 부족' },
    change: '변화',
    differing: (name, before, after) => `참고  두 결과의 ${name} 설정이 다릅니다: ${before} → ${after}`,
    unmatched: (counts) => `참고  레플리카 ${counts}개는 한쪽에만 있습니다`,
    nothingChanged: '오차 범위를 넘는 변화는 없습니다.',
    each95:
      '값마다 따로 95 %로, 회차에 대한 웰치 구간으로 판단합니다. 그대로인 값 스무 개 중 하나는 변한 것처럼 보입니다.',
    refusal: (refusal) => {
      switch (refusal.why) {
        case 'not-scale-out':
          return 'not-scale-out: 레플리카마다 CPU 제한이 없어 레플리카 수가 아무것도 바꾸지 않았습니다. --against compose로 측정하십시오.';
        case 'throttled':
          return `throttled: 레플리카 ${refusal.replicas.join(', ')}개일 때 부하 생성기가 부하를 다 만들지 못했습니다. 다른 기계에서 부하를 만드십시오.`;
        case 'errors':
          return `errors: 레플리카 ${refusal.replicas.join(', ')}개일 때 요청의 0.1 %보다 많이 실패했습니다.`;
        case 'machine-full':
          return `machine-full: 레플리카 ${refusal.replicas.join(', ')}개일 때 기계 전체가 바빠, CPU 제한만이 한계는 아니었습니다. 더 작은 --cpus나 한가한 기계로 측정하십시오.`;
        case 'too-few-counts':
          return `too-few-counts: 측정한 레플리카 수가 ${refusal.counts}가지뿐인데, 계수가 셋이라 셋이 필요합니다. --replicas 1,2,3,4로 측정하십시오.`;
        case 'too-few-points':
          return `too-few-points: 측정 ${refusal.points}번으로는 오차를 알 수 없습니다. --rounds를 늘리십시오.`;
        case 'poor-fit':
          return refusal.rSquared === null
            ? 'poor-fit: 측정값이 모두 같아 R²가 없습니다.'
            : `poor-fit: 법칙이 측정값의 ${number(100 * refusal.rSquared, 0)} %만 설명합니다(R²). 90 %는 되어야 합니다. --rounds를 늘리십시오.`;
        case 'alpha-over-1':
          return `alpha-over-1: 경합 ${number(refusal.alpha, 2)}은 일 전체보다 많습니다. 레플리카가 아닌 다른 것이 측정되었습니다.`;
        case 'never':
          return `never: 법칙에 따르면 레플리카가 몇 개든 감당하지 못합니다. 최대는 ${refusal.at}개일 때 초당 ${number(refusal.most)}건입니다.`;
        case 'peak-unseen':
          return `peak-unseen: 법칙이 짐작하는 최대는 ${refusal.at}개일 때 초당 ${number(refusal.most)}건이지만, 측정한 ${refusal.measured}개의 두 배가 넘어 더 많은 레플리카가 감당할지 알 수 없습니다. 더 많은 레플리카로 측정하십시오.`;
        case 'extrapolated':
          return `extrapolated: ${refusal.replicas}개는 측정한 ${refusal.measured}개의 두 배가 넘습니다. 더 많은 레플리카로 측정하십시오.`;
        case 'never-so-fast':
          return `never-so-fast: 법칙에 따르면 ${refusal.replicas}개가 감당하지만, 그 p95 아래로는 몇 개든 감당하지 못합니다. 더 긴 p95를 허용하거나 레플리카마다 CPU를 더 주십시오.`;
        case 'p95-too-short':
          return `p95-too-short: 이런 레플리카로는 몇 개든 p95 ${number(refusal.least, 0)} ms 아래가 될 수 없습니다. 레플리카마다 CPU를 더 주십시오.`;
      }
    },
    noAnswer: '이 측정으로는 답할 수 없습니다:',
    answer: (load, best, low, high) => `${load}: 레플리카 ${best}개 (95 %: ${low}~${high}개)`,
    load: (rps, p95) => `초당 업로드 ${rps}건${p95 === undefined ? '' : `, p95 ${p95} ms 미만`}`,
    ofSize: (cores) => `레플리카는 측정한 것과 같은, 하나에 ${cores} 코어짜리입니다.`,
    fit: '보편 확장성 법칙(USL)',
    contention: '경합 α',
    coherence: '일관성 β',
    one: '레플리카 하나 λ, 초당 업로드',
    link: (link, rps, balancers) =>
      `네트워크: ${link} Gbit/s 로드 밸런서 하나는 N과 상관없이 초당 ${rps}건까지 나릅니다. 이 부하에는 ${balancers}대가 필요합니다.`,
    store: (rps, cores, isTooMuch) =>
      `스토리지: 측정한 스토리지는 초당 약 ${rps}건에서 코어 ${cores}개를 다 씁니다(업로드당 CPU로 계산).${isTooMuch ? ' 이 부하는 그보다 많으므로 더 큰 스토리지가 필요합니다.' : ''}`,
    assumption:
      'p95는 무작위로 도착하고 레플리카마다 줄이 하나라고(M/M/1) 가정합니다: p95 = ln 20 × S ÷ (1 − 부하). loadtest/breaking-point.js로 잴 수 있습니다.',
    forecast: '예측',
  },
};
