/** Something that whoever called has to mend: exit code 2. */
export class BadInput extends Error {}

/** Everything was right, and yet the run did not come to its end: exit code 1. */
export class RunFailed extends Error {}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
