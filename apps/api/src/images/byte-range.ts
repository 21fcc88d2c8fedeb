import { type ByteRange } from '#object-store';

/**
 * The one range of bytes that a Range header asks for. Undefined, and so the whole image, when it names
 * several, another unit, or is malformed; RFC 9110, section 14.2, allows that.
 *
 * Not range-parser, which Express brings along: it answers 416 to a suffix that is longer than the image,
 * which means all of it, and to a range that ends before it begins, which is malformed.
 */
export function parseByteRange(header: string, bytes: number): ByteRange | 'unsatisfiable' | undefined {
  const [, first = '', last = ''] = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(header) ?? [];
  if (first === '' && last === '') return undefined;
  if (first === '') return within(Math.max(bytes - Number(last), 0), bytes - 1, bytes);
  if (last !== '' && Number(last) < Number(first)) return undefined;
  return within(Number(first), last === '' ? Infinity : Number(last), bytes);
}

function within(start: number, end: number, bytes: number): ByteRange | 'unsatisfiable' {
  return start < bytes ? { start, end: Math.min(end, bytes - 1) } : 'unsatisfiable';
}
