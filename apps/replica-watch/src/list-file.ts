import { renameSync, utimesSync, writeFileSync } from 'node:fs';

/** Where deploy/nginx/balancer.sh reads who serves (LB_REPLICAS_FILE): one line. Its time says that somebody looks after it. */
export class ListFile {
  #line: string | undefined;
  #isWritten = false;

  constructor(private readonly path: string) {}

  /** Whoever reads it finds the list of before or this one, never half of one. `beat` tries again what has failed. */
  put(entries: readonly string[]): void {
    this.#line = `${entries.join(', ')}\n`;
    this.#isWritten = false;
    this.beat();
  }

  beat(): void {
    if (this.#line === undefined) return;
    if (this.#isWritten) {
      const now = new Date();
      try {
        utimesSync(this.path, now, now);
        return;
      } catch {
        // It has been taken away.
      }
    }
    writeFileSync(`${this.path}.new`, this.#line);
    renameSync(`${this.path}.new`, this.path);
    this.#isWritten = true;
  }
}
