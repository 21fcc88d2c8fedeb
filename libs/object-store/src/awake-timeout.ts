const SLICE_MS = 1_000;
/** Later than a busy event loop is by itself. */
const STANDSTILL_MS = 1_000;

/**
 * Calls `onTime` after `ms` (1 to 2^31 - 1), unless what it returns is called before. Time in which this process stood still
 * (it was stopped, or its machine slept) doesn't count: what is waited for may have come meanwhile, but Node runs its timers
 * before it looks (https://nodejs.org/learn/asynchronous-work/event-loop-timers-and-nexttick).
 */
export function setAwakeTimeout(onTime: () => void, ms: number): () => void {
  let timer: NodeJS.Timeout | undefined;
  const wait = (leftMs: number): void => {
    const sliceMs = Math.min(leftMs, SLICE_MS);
    const due = performance.now() + sliceMs;
    timer = setTimeout(() => {
      const stoodStill = performance.now() - due >= STANDSTILL_MS;
      if (stoodStill) wait(leftMs);
      else if (leftMs > sliceMs) wait(leftMs - sliceMs);
      else onTime();
    }, sliceMs);
  };
  wait(ms);
  return () => {
    clearTimeout(timer);
  };
}
