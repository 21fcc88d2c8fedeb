// The longest name that the usual file systems take (NAME_MAX); percent-encoded it fits S3's 2 KiB of metadata.
const MAX_BYTES = 255;
const NAMELESS = 'image';
const graphemes = new Intl.Segmenter();

/**
 * The client's name for an image as people should see it: without folders, in NFC (macOS sends NFD), and
 * no longer than 255 bytes of UTF-8, shortened before its extension and never within a character.
 */
export function toOriginalName(sent: string): string {
  const name = sent
    .toWellFormed()
    .split(/[/\\]/)
    .filter((part) => !/^\.{0,2}$/.test(part))
    .at(-1)
    ?.normalize('NFC');
  return name === undefined ? NAMELESS : shorten(name);
}

function shorten(name: string): string {
  if (Buffer.byteLength(name) <= MAX_BYTES) return name;
  const extension = /\.[A-Za-z\d]{1,10}$/.exec(name)?.[0] ?? '';
  let room = MAX_BYTES - extension.length;
  let short = '';
  for (const { segment } of graphemes.segment(name)) {
    room -= Buffer.byteLength(segment);
    if (room < 0) break;
    short += segment;
  }
  return (short || NAMELESS) + extension;
}
