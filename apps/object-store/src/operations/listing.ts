import { setImmediate } from 'node:timers/promises';
import { sendXml } from '../http/answer.js';
import type { S3Request } from '../http/s3-request.js';
import type { XmlTree } from '../http/xml.js';
import { S3Error } from '../s3-error.js';
import { fromBinary, toBinary } from '../storage/key-name.js';
import { OWNER } from './buckets.js';
import type { Exchange } from './exchange.js';
import { quoted } from './object-headers.js';

const PAGE = 1000;
/** Heads read before others get their turn: less than a millisecond's worth. */
const HEADS_AT_ONCE = 50;

/** Keys are binary strings here; see key-name.ts. */
interface KeyPage {
  readonly keys: readonly string[];
  readonly commonPrefixes: readonly string[];
  readonly truncated: boolean;
  /** The last key or common prefix of the page. */
  readonly last: string | undefined;
}

interface PageOptions {
  readonly prefix: string;
  readonly delimiter: string;
  readonly after: string;
  readonly limit: number;
}

export async function listObjects(exchange: Exchange): Promise<void> {
  const { request, response, bucket } = exchange;
  const marker = request.query.get('marker') ?? '';
  const { page, spell, tree } = await readPage(exchange, marker);
  sendXml(response, 'ListBucketResult', {
    Name: bucket,
    Marker: spell(marker),
    // S3 gives it with a delimiter only; without one, the last key is the next marker.
    NextMarker: page.truncated && request.query.get('delimiter') ? spell(lastOf(page)) : undefined,
    ...tree({ owners: true }),
  });
}

export async function listObjectsV2(exchange: Exchange): Promise<void> {
  const { request, response, bucket } = exchange;
  if (request.query.get('list-type') !== '2') throw new S3Error('InvalidArgument', 'list-type can be 2.');
  const token = request.query.get('continuation-token') ?? undefined;
  const startAfter = request.query.get('start-after') ?? undefined;
  const { page, spell, tree } = await readPage(
    exchange,
    token === undefined ? (startAfter ?? '') : parseToken(token),
  );
  sendXml(response, 'ListBucketResult', {
    Name: bucket,
    KeyCount: page.keys.length + page.commonPrefixes.length,
    ContinuationToken: token,
    NextContinuationToken: page.truncated ? Buffer.from(lastOf(page)).toString('base64url') : undefined,
    StartAfter: startAfter === undefined ? undefined : spell(startAfter),
    ...tree({ owners: request.query.get('fetch-owner') === 'true' }),
  });
}

/** `%XX` if the client asked for `encoding-type=url`: XML cannot carry every key. */
export function spelling(request: S3Request): (key: string) => string {
  const encoding = request.query.get('encoding-type');
  if (encoding === null) return (key) => key;
  if (encoding !== 'url') throw new S3Error('InvalidArgument', 'encoding-type can be url.');
  return (key) => encodeURIComponent(key).replaceAll('%2F', '/');
}

async function readPage({ request, bucket, directory }: Exchange, after: string) {
  const prefix = request.query.get('prefix') ?? '';
  const delimiter = request.query.get('delimiter') ?? '';
  const maxKeys = request.integer('max-keys', { min: 0, max: 2 ** 31 - 1 }) ?? PAGE;
  const spell = spelling(request);
  const page = pageOf(await directory.binaryKeys(bucket, prefix), {
    prefix: toBinary(prefix),
    delimiter: toBinary(delimiter),
    after: toBinary(after),
    limit: Math.min(maxKeys, PAGE),
  });

  const contents: XmlTree[] = [];
  const tree = ({ owners }: { owners: boolean }): XmlTree => ({
    Prefix: spell(prefix),
    Delimiter: delimiter === '' ? undefined : spell(delimiter),
    MaxKeys: maxKeys,
    EncodingType: request.query.get('encoding-type') ?? undefined,
    IsTruncated: page.truncated,
    Contents: contents.map((entry) => (owners ? { ...entry, Owner: OWNER } : entry)),
    CommonPrefixes: page.commonPrefixes.map((common) => ({ Prefix: spell(fromBinary(common)) })),
  });
  for (const [index, binaryKey] of page.keys.entries()) {
    if (index % HEADS_AT_ONCE === HEADS_AT_ONCE - 1) await setImmediate();
    const key = fromBinary(binaryKey);
    const head = directory.headObject(bucket, key);
    // Deleted since the names were read.
    if (!head) continue;
    contents.push({
      Key: spell(key),
      LastModified: new Date(head.lastModifiedMs).toISOString(),
      ETag: quoted(head.etag),
      Size: head.bytes,
      StorageClass: 'STANDARD',
    });
  }
  return { page, spell, tree };
}

/** Keys that share what comes between the prefix and the first delimiter after it count as one. */
function pageOf(keys: readonly string[], { prefix, delimiter, after, limit }: PageOptions): KeyPage {
  const page = { keys: [] as string[], commonPrefixes: [] as string[] };
  let last: string | undefined;
  // A page that ended with a common prefix is followed by what comes after all the keys under it.
  const passed = delimiter !== '' && after.endsWith(delimiter) ? after : undefined;
  for (const key of keys.filter((candidate) => candidate > after).sort()) {
    const end = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
    const entry = end === -1 ? key : key.slice(0, end + delimiter.length);
    if (end !== -1 && (entry === last || entry === passed)) continue;
    if (page.keys.length + page.commonPrefixes.length >= limit) {
      return { ...page, truncated: limit > 0, last };
    }
    (end === -1 ? page.keys : page.commonPrefixes).push(entry);
    last = entry;
  }
  return { ...page, truncated: false, last };
}

function lastOf(page: KeyPage): string {
  return fromBinary(page.last ?? '');
}

function parseToken(token: string): string {
  const key = Buffer.from(token, 'base64url');
  if (key.length === 0 || key.toString('base64url') !== token) {
    throw new S3Error('InvalidArgument', 'The continuation token is not one of ours.');
  }
  return key.toString();
}
