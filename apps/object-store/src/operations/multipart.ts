import { sendEmpty, sendXml } from '../http/answer.js';
import { children, parseXml, text, XmlElement } from '../http/xml.js';
import { S3Error } from '../s3-error.js';
import { toBinary } from '../storage/key-name.js';
import type { Part, UploadAddress } from '../storage/uploads.js';
import { OWNER } from './buckets.js';
import type { Exchange } from './exchange.js';
import { spelling } from './listing.js';
import { headersToKeep, quoted } from './object-headers.js';
import { onlyIfAbsent } from './preconditions.js';

const PARTS = 10_000;
const PAGE = 1000;
/** 10,000 parts with a checksum each. */
const COMPLETE_XML_BYTES = 4 * 1024 * 1024;

export async function createMultipartUpload({
  request,
  response,
  bucket,
  key,
  uploads,
}: Exchange): Promise<void> {
  const uploadId = await uploads.create(bucket, key, headersToKeep(request));
  sendXml(response, 'InitiateMultipartUploadResult', { Bucket: bucket, Key: key, UploadId: uploadId });
}

export async function uploadPart(exchange: Exchange): Promise<void> {
  const { request, response, body, uploads, signal } = exchange;
  const number = request.integer('partNumber', { min: 1, max: PARTS }) ?? 0;
  const head = await uploads.putPart(
    addressOf(exchange),
    number,
    body,
    (bytes) => ({
      key: exchange.key,
      bytes,
      etag: body.md5().toString('hex'),
      lastModifiedMs: Date.now(),
      headers: body.checksums(),
    }),
    signal,
  );
  sendEmpty(response, 200, { etag: quoted(head.etag), ...body.checksums() });
}

export async function completeMultipartUpload(exchange: Exchange): Promise<void> {
  const { request, response, bucket, key, body, uploads, signal } = exchange;
  const ifAbsent = onlyIfAbsent(request);
  const parts = parseParts(await body.text(COMPLETE_XML_BYTES));
  const head = await uploads.complete(addressOf(exchange), parts, { ifAbsent, signal });
  sendXml(response, 'CompleteMultipartUploadResult', {
    Location: `/${bucket}/${encodeURIComponent(key)}`,
    Bucket: bucket,
    Key: key,
    ETag: quoted(head.etag),
  });
}

export async function abortMultipartUpload(exchange: Exchange): Promise<void> {
  await exchange.uploads.abort(addressOf(exchange));
  sendEmpty(exchange.response, 204);
}

export async function listParts(exchange: Exchange): Promise<void> {
  const { request, response, bucket, key, uploads } = exchange;
  const address = addressOf(exchange);
  const limit = Math.min(request.integer('max-parts', { min: 0, max: 2 ** 31 - 1 }) ?? PAGE, PAGE);
  const marker = request.integer('part-number-marker', { min: 0, max: 2 ** 31 - 1 }) ?? 0;
  const parts = (await uploads.parts(address)).filter(({ number }) => number > marker);
  const page = parts.slice(0, limit);
  const truncated = page.length < parts.length && limit > 0;
  sendXml(response, 'ListPartsResult', {
    Bucket: bucket,
    Key: key,
    UploadId: address.uploadId,
    Initiator: OWNER,
    Owner: OWNER,
    StorageClass: 'STANDARD',
    PartNumberMarker: marker,
    NextPartNumberMarker: truncated ? page.at(-1)?.number : undefined,
    MaxParts: limit,
    IsTruncated: truncated,
    Part: page.map(({ number, head }) => ({
      PartNumber: number,
      LastModified: new Date(head.lastModifiedMs).toISOString(),
      ETag: quoted(head.etag),
      Size: head.bytes,
    })),
  });
}

/** By key, then by the time they were begun. */
export async function listMultipartUploads({ request, response, bucket, uploads }: Exchange): Promise<void> {
  const prefix = request.query.get('prefix') ?? '';
  const keyMarker = request.query.get('key-marker') ?? '';
  const idMarker = keyMarker === '' ? '' : (request.query.get('upload-id-marker') ?? '');
  const limit = Math.min(request.integer('max-uploads', { min: 1, max: 2 ** 31 - 1 }) ?? PAGE, PAGE);
  const spell = spelling(request);
  // NUL parts key and id in the order wanted, since it is below every byte that goes on with a key.
  const place = (key: string, id: string) => `${toBinary(key)}\0${id}`;
  // Without an id, the marker is past every upload of its key.
  const after = place(keyMarker, idMarker || '~');
  const found = (await uploads.list(bucket))
    .filter(({ key }) => key.startsWith(prefix))
    .map((upload) => ({ ...upload, place: place(upload.key, upload.id) }))
    .filter((upload) => keyMarker === '' || upload.place > after)
    .sort((a, b) => (a.place < b.place ? -1 : 1));
  const page = found.slice(0, limit);
  const next = page.length < found.length ? page.at(-1) : undefined;
  sendXml(response, 'ListMultipartUploadsResult', {
    Bucket: bucket,
    Prefix: spell(prefix),
    KeyMarker: spell(keyMarker),
    UploadIdMarker: idMarker,
    NextKeyMarker: next && spell(next.key),
    NextUploadIdMarker: next?.id,
    MaxUploads: limit,
    EncodingType: request.query.get('encoding-type') ?? undefined,
    IsTruncated: next !== undefined,
    Upload: page.map(({ key, id, initiatedMs }) => ({
      Key: spell(key),
      UploadId: id,
      Initiator: OWNER,
      Owner: OWNER,
      StorageClass: 'STANDARD',
      Initiated: new Date(initiatedMs).toISOString(),
    })),
  });
}

function addressOf({ request, bucket, key }: Exchange): UploadAddress {
  return { bucket, key, uploadId: request.query.get('uploadId') ?? '' };
}

function parseParts(document: string): Part[] {
  const parts = children(parseXml(document, 'CompleteMultipartUpload'), 'Part').map((part) => {
    const number = Number(text(part, 'PartNumber')?.trim());
    const etag = text(part, 'ETag')
      ?.trim()
      .replace(/^"(.*)"$/, '$1');
    if (!Number.isInteger(number) || !etag) throw new S3Error('MalformedXML');
    if (number < 1 || number > PARTS) throw new S3Error('InvalidPart');
    return { number, etag, checksums: checksumsOf(part) };
  });
  if (parts.length < 1 || parts.length > PARTS) throw new S3Error('MalformedXML');
  return parts;
}

/** `<ChecksumCRC32>` and its like, by the header a part is sent with. */
function checksumsOf(part: XmlElement): Record<string, string> {
  return Object.fromEntries(
    part.children
      .filter((child) => child instanceof XmlElement)
      .filter(({ name }) => name.startsWith('Checksum'))
      .map(({ name, text: value }) => [
        `x-amz-checksum-${name.slice('Checksum'.length).toLowerCase()}`,
        value.trim(),
      ]),
  );
}
