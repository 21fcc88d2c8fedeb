import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** Every wrong variable at once; the message is for the person who starts the program. */
export class EnvError extends Error {
  override readonly name = 'EnvError';

  constructor(readonly problems: readonly string[]) {
    const count =
      problems.length === 1 ? '1 environment variable is' : `${problems.length} environment variables are`;
    super(
      `${count} wrong:\n${problems.map((problem) => `  ${problem}`).join('\n')}\nSee .env.example for all of them.`,
    );
  }
}

type Source = Readonly<Record<string, string | undefined>>;
type Shape = Readonly<Record<string, z.ZodType>>;
export type Values<S extends Shape> = { [Name in keyof S]: z.output<S[Name]> };

/** What variables that are right by themselves may still get wrong together. */
export interface Rule<V> {
  /** The variables that `problem` looks at; it is asked only when each of them is right. */
  readonly of: readonly (keyof V & string)[];
  readonly problem: (values: V) => string | undefined;
}

/**
 * Reads the variables that `shape` names. An empty value counts as unset, since compose files pass
 * `${NAME:-}` on. A secret may come from the file that `NAME_FILE` names instead (as Docker secrets do).
 *
 * @throws EnvError naming each bad variable, what it holds (a secret's value never) and what is allowed,
 * and each rule that is broken.
 */
export function readEnv<S extends Shape>(
  shape: S,
  source: Source,
  rules: readonly Rule<Values<S>>[] = [],
): Values<S> {
  const values: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [name, schema] of Object.entries(shape)) {
    const isSecret = schema.meta()?.['secret'] === true;
    try {
      const held = (isSecret ? readSecret(name, source) : source[name]) || undefined;
      const result = schema.safeParse(held);
      if (result.success) values[name] = result.data;
      else problems.push(describe(name, held, isSecret, result.error));
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  for (const { of, problem } of rules) {
    if (!of.every((name) => name in values)) continue;
    const broken = problem(values as Values<S>);
    if (broken !== undefined) problems.push(broken);
  }
  if (problems.length > 0) throw new EnvError(problems);
  return values as Values<S>;
}

function readSecret(name: string, source: Source): string | undefined {
  const path = source[`${name}_FILE`];
  if (!path) return source[name];
  if (source[name]) throw new Error(`${name} and ${name}_FILE are both set; set one of them`);
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new Error(
      `${name}_FILE holds "${path}", which can't be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`,
    );
  }
}

function describe(name: string, held: string | undefined, isSecret: boolean, error: z.ZodError): string {
  const expected = [...new Set(error.issues.map((issue) => issue.message))].join('; ');
  if (held === undefined) return `${name} is not set; expected ${expected}`;
  const isShown = !isSecret && !hasUser(held);
  return `${name} holds ${isShown ? JSON.stringify(held) : 'a value that is not shown'}; expected ${expected}`;
}

/** A whole number in decimal digits, within `min` and `max`. */
export function integer({ min, max, default: fallback }: { min: number; max: number; default: number }) {
  const expected = `a whole number from ${min} to ${max}`;
  return z
    .string(expected)
    .regex(/^\d{1,15}$/, expected)
    .transform(Number)
    .refine((value) => value >= min && value <= max, expected)
    .default(fallback);
}

/** `true` or `false`. */
export function flag() {
  return z.enum(['true', 'false'], 'true or false').transform((value) => value === 'true');
}

export function oneOf<const Choices extends readonly [string, ...string[]]>(choices: Choices) {
  return z.enum(choices, `one of ${choices.join(', ')}`);
}

/** A URL may hold a password, be it one that can't be parsed. */
function hasUser(url: string): boolean {
  return /^[^:]*:\/*[^/?#]*@/.test(url);
}

/** An http or https URL to which a path can be appended; a trailing slash and the scheme's own port are dropped. */
export function url() {
  const expected = 'an http:// or https:// URL without "?", "#" or a user and password';
  return z
    .string(expected)
    .refine((value) => URL.canParse(value) && /^https?:[^?#]+$/i.test(value) && !hasUser(value), expected)
    .transform((value) => new URL(value).href.replace(/\/+$/, ''));
}

export function text(expected: string, pattern = /^/) {
  return z.string(expected).regex(pattern, expected);
}

/** A value that no message shows, and that may come from a file: see `readEnv`. */
export function secret<Schema extends z.ZodType>(schema: Schema): Schema {
  return schema.meta({ secret: true });
}

/** Items parted by commas, white space around them dropped; no empty items, but at least one. */
export function list<Item extends z.ZodType<unknown, string>>(item: Item) {
  return z
    .string()
    .transform((value) =>
      value
        .split(',')
        .map((part) => part.trim())
        .filter(Boolean),
    )
    .pipe(z.array(item).min(1, 'at least one item'));
}
