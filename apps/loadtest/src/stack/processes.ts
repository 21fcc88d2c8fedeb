import { readdirSync, readFileSync } from 'node:fs';

/** Of /proc/stat and /proc/PID/stat: USER_HZ, which Linux shows as 100 on every machine. */
const TICKS_PER_SECOND = 100;

export interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
  /** Seconds, with those of children that have ended and been waited for. */
  readonly cpuSeconds: number;
}

/** What runs on this machine, by process id; none where there is no /proc. */
export function processes(): Map<number, Process> {
  let names: string[];
  try {
    names = readdirSync('/proc');
  } catch {
    return new Map();
  }
  const found = names.filter((name) => /^\d+$/.test(name)).flatMap((name) => processOf(Number(name)) ?? []);
  return new Map(found.map((process) => [process.pid, process]));
}

export function processOf(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name, in parentheses, may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0);
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return { pid, parent: Number(fields[1]), command, cpuSeconds: ticks / TICKS_PER_SECOND };
  } catch {
    return undefined; // It has ended.
  }
}

/** Every process below this one. */
export function descendants(pid: number, all = processes()): Process[] {
  const children = [...all.values()].filter(({ parent }) => parent === pid);
  return children.flatMap((child) => [child, ...descendants(child.pid, all)]);
}

/** A variable that a process was started with. */
export function environmentOf(pid: number, name: string): string | undefined {
  try {
    const line = readFileSync(`/proc/${pid}/environ`, 'utf8')
      .split('\0')
      .find((text) => text.startsWith(`${name}=`));
    return line?.slice(name.length + 1);
  } catch {
    return undefined;
  }
}

/** Seconds of CPU that this machine has spent on anything since it was started; undefined: it doesn't tell. */
export function machineCpuSeconds(): number | undefined {
  try {
    const [, ...fields] = (readFileSync('/proc/stat', 'latin1').split('\n')[0] ?? '').split(/ +/);
    // user, nice, system, idle, iowait, irq, softirq, steal: all but the two in which it waited.
    const busy = fields.slice(0, 8).filter((_, index) => index !== 3 && index !== 4);
    return busy.reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
  } catch {
    return undefined;
  }
}
