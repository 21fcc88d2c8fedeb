import { existsSync, mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BadInput } from './problem.js';

/** Where the results of a run go; made before anything is started, so that no run is lost for want of a place. */
export class ResultsFolder {
  private constructor(
    readonly path: string,
    private readonly made: readonly string[],
  ) {}

  /** @throws BadInput when nothing can be written there, or it holds a result */
  static make(path: string): ResultsFolder {
    if (existsSync(join(path, 'summary.json'))) {
      throw new BadInput(`${path} holds a result already; name another folder with --out.`);
    }
    // One after the other: Node's own recursion never ends below /proc.
    const missing: string[] = [];
    for (let folder = path; !existsSync(folder); folder = dirname(folder)) missing.unshift(folder);
    const made: string[] = [];
    try {
      for (const folder of missing) {
        mkdirSync(folder);
        made.unshift(folder);
      }
      const probe = join(path, `.naru-${process.pid}`);
      writeFileSync(probe, '');
      rmSync(probe);
    } catch (error) {
      for (const folder of made) rmdirSync(folder);
      const { code } = error as NodeJS.ErrnoException;
      throw new BadInput(
        `Results can't be written to ${path} (${code ?? String(error)}); name a folder that can be written with --out.`,
      );
    }
    return new ResultsFolder(path, made);
  }

  write(name: string, content: string | Uint8Array): string {
    const path = join(this.path, name);
    writeFileSync(path, content);
    return path;
  }

  /** Leaves no empty folder behind when there is no result after all. */
  discard(): void {
    for (const folder of this.made) {
      try {
        rmdirSync(folder);
      } catch {
        return; // Something is in it.
      }
    }
  }
}
