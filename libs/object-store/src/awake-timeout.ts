/** Later than a busy event loop is by itself. */
const STANDSTILL_MS = 1_000;

/**
 * Calls `onTime` after `ms` (1 to 2^31 - 1), unless what it returns is called before. Time in which this process stood still
 * (it was stopped, or its machine slept) is given back, once: what is waited for may have come meanwhile, but Node runs its
 * timers before it looks (https://nodejs.org/learn/asynchronous-work/event-loop-timers-and-nexttick).
 */
export function setAwakeTimeout(onTime: () => void, ms: number): () => void {
  const due = performance.now() + ms;
  let timer = setTimeout(() => {
    const lateMs = performance.now() - due;
    if (lateMs < STANDSTILL_MS) onTime();
    else timer = setTimeout(onTime, lateMs);
  }, ms);
  return () => {
    clearTimeout(timer);
  };
}
