import { Digests } from '../body/digests.js';
import { sendEmpty, sendXml } from '../http/answer.js';
import { assertKey } from '../http/s3-request.js';
import { children, parseXml, text } from '../http/xml.js';
import { S3Error } from '../s3-error.js';
import type { ObjectHead } from '../storage/object-file.js';
import type { Exchange } from './exchange.js';
import { headersToKeep, quoted } from './object-headers.js';
import { onlyIfAbsent, onlyIfMatch } from './preconditions.js';

const DELETES = 1000;
const DELETE_XML_BYTES = 2 * 1024 * 1024;

export async function putObject(exchange: Exchange): Promise<void> {
  const { request, response, bucket, key, body, directory, signal } = exchange;
  const headers = headersToKeep(request);
  const head = await directory.put(
    bucket,
    key,
    body,
    (bytes) => ({ key, bytes, etag: body.md5().toString('hex'), lastModifiedMs: Date.now(), headers }),
    { ifAbsent: onlyIfAbsent(request), ifMatch: onlyIfMatch(request), signal },
  );
  sendEmpty(response, 200, { etag: quoted(head.etag), ...body.checksums() });
}

export async function copyObject(exchange: Exchange): Promise<void> {
  const { request, response, bucket, key, directory, signal } = exchange;
  const source = parseCopySource(request.header('x-amz-copy-source') ?? '');
  const directive = request.header('x-amz-metadata-directive') ?? 'COPY';
  if (directive !== 'COPY' && directive !== 'REPLACE') {
    throw new S3Error('InvalidArgument', 'x-amz-metadata-directive is neither COPY nor REPLACE.');
  }
  if (directive === 'COPY' && source.bucket === bucket && source.key === key) {
    throw new S3Error('InvalidRequest', 'A copy onto itself has to change the metadata.');
  }
  const replaced = headersToKeep(request);
  directory.requireBucket(bucket);
  const original = directory.openObject(source.bucket, source.key);
  const digests = new Digests(['md5']);
  const seal = (bytes: number): ObjectHead => ({
    key,
    bytes,
    etag: digests.of('md5').toString('hex'),
    lastModifiedMs: Date.now(),
    headers: directive === 'REPLACE' ? replaced : original.head.headers,
  });
  try {
    const content = digests.through(original.content());
    const head = await directory.put(bucket, key, content, seal, { ifAbsent: false, signal });
    sendXml(response, 'CopyObjectResult', {
      ETag: quoted(head.etag),
      LastModified: new Date(head.lastModifiedMs).toISOString(),
    });
  } finally {
    original.close();
  }
}

export async function deleteObject({ bucket, key, directory, response }: Exchange): Promise<void> {
  await directory.deleteObject(bucket, key);
  sendEmpty(response, 204);
}

/** Up to 1,000 keys. As at S3, the body has to come with a checksum: a flipped bit would delete another object. */
export async function deleteObjects({ bucket, body, directory, response }: Exchange): Promise<void> {
  directory.requireBucket(bucket);
  if (!body.isProtected) throw new S3Error('InvalidRequest', 'Content-MD5 or a checksum is missing.');
  const request = parseXml(await body.text(DELETE_XML_BYTES), 'Delete');
  const objects = children(request, 'Object');
  if (objects.length < 1 || objects.length > DELETES) throw new S3Error('MalformedXML');
  const keys = objects.map((object) => {
    const key = text(object, 'Key');
    if (!key) throw new S3Error('MalformedXML');
    if (text(object, 'VersionId') !== undefined)
      throw new S3Error('NotImplemented', 'There are no versions.');
    assertKey(key);
    return key;
  });
  for (const key of keys) await directory.deleteObject(bucket, key);
  const quiet = text(request, 'Quiet')?.trim() === 'true';
  sendXml(response, 'DeleteResult', { Deleted: quiet ? [] : keys.map((key) => ({ Key: key })) });
}

function parseCopySource(header: string): { bucket: string; key: string } {
  if (header.includes('?')) throw new S3Error('NotImplemented', 'There are no versions to copy.');
  let source: string;
  try {
    source = decodeURIComponent(header);
  } catch {
    throw new S3Error('InvalidArgument', 'x-amz-copy-source cannot be decoded.');
  }
  const [, bucket, key] = /^\/?([^/]+)\/(.+)$/s.exec(source) ?? [];
  if (!bucket || !key) throw new S3Error('InvalidArgument', 'x-amz-copy-source is not BUCKET/KEY.');
  assertKey(key);
  return { bucket, key };
}
