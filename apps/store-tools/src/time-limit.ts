import { within } from '#object-store';

/** As `within`, but doesn't wait for one that is deaf to its signal. */
export function atMost<Result>(
  ms: number,
  signal: AbortSignal,
  run: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  return within(ms, signal, (ended) => Promise.race([run(ended), rejection(ended)]));
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const onAbort = () => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
  });
}
