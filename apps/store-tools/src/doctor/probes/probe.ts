import { S3ServiceException } from '@aws-sdk/client-s3';
import { type S3Options } from '#object-store';
import { type Bench } from '../bench.js';

/** `no`: the store said so, or does something else; `failed`: it was in trouble, which says nothing of what it can. */
export type Outcome = 'yes' | 'no' | 'failed' | 'skipped';

export interface Finding {
  readonly outcome: Outcome;
  readonly detail?: string;
}

export interface Probe {
  readonly name: string;
  /** Whether Naru can't do without. */
  readonly isNeeded: boolean;
  /** Without the success of these this one would say nothing. */
  readonly after?: readonly string[];
  /** Nothing returned is a yes; a rejection is what the store answers. */
  readonly run: (bench: Bench, signal: AbortSignal) => Promise<Finding | undefined>;
  /** What Naru does about it. */
  readonly does: (outcome: Outcome, options: S3Options) => string;
}

export function no(detail: string): Finding {
  return { outcome: 'no', detail };
}

export function either(yes: string, otherwise: string): Probe['does'] {
  return (outcome) => (outcome === 'yes' ? yes : otherwise);
}

/** What Naru, which can't do without, uses it for. */
export function needed(use: string): Probe['does'] {
  return either(`Naru ${use}`, `Naru needs it: it ${use}`);
}

export function isNamed(error: unknown, ...names: string[]): boolean {
  return error instanceof S3ServiceException && names.includes(error.name);
}
