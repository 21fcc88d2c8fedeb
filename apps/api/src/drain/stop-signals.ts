// No imports: main.ts has this before anything else of a replica is loaded.

const SIGNALS = ['SIGTERM', 'SIGINT'] as const;
// A terminal sends its Ctrl-C to every process, and npm passes it on: both are one and the same.
const ECHO_MS = 250;

/**
 * The first SIGTERM or SIGINT stops the process as `onStop` says, or at once with 0 as long as nobody said; a second one
 * ends it at once with 1, whatever is still in flight.
 */
export class StopSignals {
  #stop: (reason: string) => void = () => process.exit(0);
  #beforeEnd: (signal: string) => void = () => undefined;
  #isStopping = false;
  #firstAt: number | undefined;

  constructor() {
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        this.#take(signal);
      });
    }
  }

  /** What it takes to stop from now on, and what a second signal still leaves to do before the end: to say so. */
  onStop(stop: (reason: string) => void, beforeEnd: (signal: string) => void): void {
    this.#stop = stop;
    this.#beforeEnd = beforeEnd;
  }

  /** For reasons other than a signal; one of those neither hastens a stop nor is hastened by a first signal. */
  stop(reason: string): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    this.#stop(reason);
  }

  #take(signal: string): void {
    const now = performance.now();
    this.#firstAt ??= now;
    if (now === this.#firstAt) this.stop(signal);
    else if (now - this.#firstAt >= ECHO_MS) {
      this.#beforeEnd(signal);
      process.exit(1);
    }
  }
}
