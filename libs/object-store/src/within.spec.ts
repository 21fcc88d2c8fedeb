import { getEventListeners, once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { TimeIsUpError, within } from './within.js';

/** Never done by itself; ends, as requests do, with an error of its own when it is told to. */
async function forever(signal: AbortSignal): Promise<never> {
  await once(signal, 'abort');
  throw new Error('aborted');
}

const timers = () => process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length;

describe('within', () => {
  it('gives what is done in time, and leaves neither a timer nor a listener', async () => {
    const { signal } = new AbortController();
    const before = timers();
    expect(await within(60_000, signal, () => Promise.resolve('done'))).toBe('done');
    await expect(within(60_000, signal, () => Promise.reject(new Error('failed')))).rejects.toThrow('failed');
    expect(timers()).toBe(before);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('ends what takes longer, though memory is cleared meanwhile', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const outcome = within(300, new AbortController().signal, forever).catch((error: unknown) => error);
    for (let i = 0; i < 5; i += 1) {
      await new Promise((resolve) => setTimeout(resolve, 30));
      collect();
    }
    expect(await outcome).toEqual(new TimeIsUpError(300));
  });

  it.each([
    ['at the end', 300],
    ['in the middle', 2_100],
  ])('does not count the time in which the process stood still, %s', async (_, ms) => {
    const standstillMs = 2_000;
    const signals: AbortSignal[] = [];
    const outcome = within(ms, undefined, (signal) => {
      signals.push(signal);
      return forever(signal);
    }).catch((error: unknown) => error);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, standstillMs);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(signals[0]?.aborted).toBe(false);
    expect(await outcome).toEqual(new TimeIsUpError(ms));
  });

  it('ends for the reason of a signal that is aborted, before or meanwhile', async () => {
    const reason = new Error('the client left');
    await expect(within(60_000, AbortSignal.abort(reason), forever)).rejects.toBe(reason);
    const controller = new AbortController();
    const outcome = within(60_000, controller.signal, forever);
    controller.abort(reason);
    await expect(outcome).rejects.toBe(reason);
  });
});
