import { createHash } from 'node:crypto';

/** What the common file systems take, in bytes. */
const NAME_BYTES = 255;
const SPELLED = 'key-';
const HASHED = 'sha256-';

/**
 * Keys as file names. A name is made of `a-z 0-9 - _ %` alone, so no key is a path, hidden, reserved,
 * or the same as another on a file system that folds case or normalises Unicode: every other byte of
 * the key's UTF-8 is spelled `%xx`. A name that would be too long is the key's hash instead, and the
 * key is read from the object.
 *
 * Keys are handled here as *binary strings*, one character per byte of UTF-8: compared as JavaScript
 * compares strings, those come in the order S3 lists in, which UTF-16 does not keep.
 */
export function nameOf(key: string): string {
  const name = SPELLED + spell(key);
  return name.length <= NAME_BYTES ? name : HASHED + createHash('sha256').update(key).digest('hex');
}

/** The key in binary; undefined if the name is a hash. */
export function binaryKeyOf(name: string): string | undefined {
  if (!name.startsWith(SPELLED)) return undefined;
  return name
    .slice(SPELLED.length)
    .replace(/%(..)/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** Whether the key could start with the prefix, told from its name alone. */
export function mayStartWith(prefix: string): (name: string) => boolean {
  const start = SPELLED + spell(prefix);
  return (name) => name.startsWith(start) || name.startsWith(HASHED);
}

export function toBinary(text: string): string {
  return Buffer.from(text).toString('latin1');
}

export function fromBinary(binary: string): string {
  return Buffer.from(binary, 'latin1').toString();
}

function spell(key: string): string {
  return toBinary(key).replace(
    /[^a-z0-9_-]/g,
    (byte) => `%${byte.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
