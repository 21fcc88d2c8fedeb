import { parseXml as parse, XmlElement } from '@rgrove/parse-xml';
import { S3Error } from '../s3-error.js';

export { XmlElement };

/** A document to be: a tree of elements; an array repeats its element, `undefined` leaves it out. */
export interface XmlTree {
  readonly [element: string]: XmlValue;
}
export type XmlValue = string | number | boolean | undefined | XmlTree | readonly XmlTree[];

// Besides what XML reserves, what a parser would change or refuse when it stands bare: a key may hold
// CR, LF and control characters. (XML 1.0 refuses most of those either way; `encoding-type=url` is for them.)
const UNSAFE = /[&<>"'\u0000-\u001f\u007f\ufffe\uffff]/g;

/** Elements and text is all that S3's answers have, so no library for it. */
export function toXml(root: string, content: XmlValue): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n${element(root, content)}`;
}

/** The root element. Throws MalformedXML unless the document is well-formed and has that root. */
export function parseXml(document: string, root: string): XmlElement {
  let parsed: XmlElement | null;
  try {
    parsed = parse(document).root;
  } catch {
    throw new S3Error('MalformedXML');
  }
  if (parsed?.name !== root) throw new S3Error('MalformedXML');
  return parsed;
}

/** The children of that name. */
export function children(parent: XmlElement, name: string): XmlElement[] {
  return parent.children
    .filter((child) => child instanceof XmlElement)
    .filter((child) => child.name === name);
}

/** The text of the first child of that name. */
export function text(parent: XmlElement, name: string): string | undefined {
  return children(parent, name)[0]?.text;
}

function element(name: string, value: XmlValue): string {
  if (value === undefined) return '';
  if (Array.isArray(value)) return (value as readonly XmlTree[]).map((item) => element(name, item)).join('');
  return `<${name}>${typeof value === 'object' ? elements(value as XmlTree) : escape(String(value))}</${name}>`;
}

function elements(tree: XmlTree): string {
  return Object.entries(tree)
    .map(([name, value]) => element(name, value))
    .join('');
}

function escape(value: string): string {
  return value.replace(UNSAFE, (character) => `&#${character.charCodeAt(0)};`);
}
