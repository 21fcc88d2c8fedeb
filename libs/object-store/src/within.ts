import { setAwakeTimeout } from './awake-timeout.js';

/** Something was not done in the time it had. */
export class TimeIsUpError extends Error {
  override readonly name = 'TimeIsUpError';

  constructor(readonly ms: number) {
    super(`not done within ${ms} ms`);
  }
}

/**
 * Runs something under a signal that is aborted when `signal` is, or after `ms` (1 to 2^31 - 1) of being awake. What it then
 * rejects with is replaced by a `TimeIsUpError`, or by the reason of `signal`.
 *
 * A timer of its own, and not `AbortSignal.any([signal, AbortSignal.timeout(ms)])`: Node 20 holds those two weakly, and once
 * they are collected nothing ends any more (nodejs/node#57736).
 */
export async function within<Result>(
  ms: number,
  signal: AbortSignal | undefined,
  run: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const onAbort = () => {
    controller.abort(signal?.reason);
  };
  const stopTimer = setAwakeTimeout(() => {
    controller.abort(new TimeIsUpError(ms));
  }, ms);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await run(controller.signal);
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    stopTimer();
    signal?.removeEventListener('abort', onAbort);
  }
}
