import type { S3Request } from '../http/s3-request.js';
import { S3Error } from '../s3-error.js';
import type { ObjectHead } from '../storage/object-file.js';

const METADATA = 'x-amz-meta-';
const METADATA_BYTES = 2048;
const KEPT = [
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-type',
  'expires',
];

/** The headers of a request that are kept with the object. Throws MetadataTooLarge. */
export function headersToKeep(request: S3Request): Record<string, string> {
  const kept: Record<string, string> = { 'content-type': 'binary/octet-stream' };
  let metadataBytes = 0;
  for (const name of request.headerNames()) {
    const value = request.header(name) ?? '';
    if (name.startsWith(METADATA)) {
      metadataBytes += Buffer.byteLength(name.slice(METADATA.length) + value);
      kept[name] = value;
    } else if (KEPT.includes(name) && value !== '') {
      kept[name] = value;
    }
  }
  if (metadataBytes > METADATA_BYTES) throw new S3Error('MetadataTooLarge');
  const encoding = withoutAwsChunked(kept['content-encoding']);
  if (encoding) kept['content-encoding'] = encoding;
  else delete kept['content-encoding'];
  return kept;
}

/** How a read of the object is answered, but for its length. */
export function headersOf(head: ObjectHead): Record<string, string> {
  return {
    ...head.headers,
    'accept-ranges': 'bytes',
    etag: quoted(head.etag),
    'last-modified': new Date(head.lastModifiedMs).toUTCString(),
  };
}

export function quoted(etag: string): string {
  return `"${etag}"`;
}

// It says how the body was framed on the way, which is not the object's business.
function withoutAwsChunked(encoding: string | undefined): string | undefined {
  return encoding
    ?.split(',')
    .map((coding) => coding.trim())
    .filter((coding) => coding !== 'aws-chunked')
    .join(', ');
}
