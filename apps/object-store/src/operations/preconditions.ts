import fresh from 'fresh';
import type { S3Request } from '../http/s3-request.js';
import { S3Error } from '../s3-error.js';
import type { ObjectHead } from '../storage/object-file.js';
import { headersOf, quoted } from './object-headers.js';

/**
 * Whether the client has the object already (304). Throws PreconditionFailed. In the order of
 * RFC 9110, section 13.2.2, and as S3 words it: an entity tag may come without its quotes.
 */
export function isNotModified(request: S3Request, head: ObjectHead): boolean {
  const match = request.header('if-match');
  const unmodifiedSince = Date.parse(request.header('if-unmodified-since') ?? '');
  if (match !== undefined) {
    if (!includesEtag(match, head)) throw new S3Error('PreconditionFailed');
  } else if (toSeconds(head.lastModifiedMs) > unmodifiedSince) {
    throw new S3Error('PreconditionFailed');
  }

  const noneMatch = request.header('if-none-match');
  if (noneMatch !== undefined) return includesEtag(noneMatch, head);
  const modifiedSince = request.header('if-modified-since');
  return modifiedSince !== undefined && fresh({ 'if-modified-since': modifiedSince }, headersOf(head));
}

/** Whether a write must not replace an object. Throws NotImplemented for anything but `If-None-Match: *`. */
export function onlyIfAbsent(request: S3Request): boolean {
  const noneMatch = request.header('if-none-match');
  if (noneMatch === undefined) return false;
  if (noneMatch.trim() !== '*') throw new S3Error('NotImplemented', 'A write knows If-None-Match: * only.');
  return true;
}

/** What a write expects of the object that it replaces, if it expects any (If-Match). */
export function onlyIfMatch(request: S3Request): ((head: ObjectHead) => boolean) | undefined {
  const match = request.header('if-match');
  return match === undefined ? undefined : (head) => includesEtag(match, head);
}

function includesEtag(list: string, head: ObjectHead): boolean {
  return list.trim() === head.etag || fresh({ 'if-none-match': list.trim() }, { etag: quoted(head.etag) });
}

function toSeconds(timeMs: number): number {
  return Math.floor(timeMs / 1000) * 1000;
}
