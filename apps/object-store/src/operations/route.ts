import { isAmzHeader, type S3Request } from '../http/s3-request.js';
import { S3Error } from '../s3-error.js';
import { createBucket, deleteBucket, getBucketLocation, headBucket, listBuckets } from './buckets.js';
import type { Exchange } from './exchange.js';
import { listObjects, listObjectsV2 } from './listing.js';
import {
  abortMultipartUpload,
  completeMultipartUpload,
  createMultipartUpload,
  listMultipartUploads,
  listParts,
  uploadPart,
} from './multipart.js';
import { copyObject, deleteObject, deleteObjects, putObject } from './objects.js';
import { getObject, headObject } from './reads.js';

/** By the names S3 gives them. */
const OPERATION = {
  ListBuckets: listBuckets,
  CreateBucket: createBucket,
  HeadBucket: headBucket,
  DeleteBucket: deleteBucket,
  GetBucketLocation: getBucketLocation,
  ListMultipartUploads: listMultipartUploads,
  ListObjectsV2: listObjectsV2,
  ListObjects: listObjects,
  DeleteObjects: deleteObjects,
  UploadPart: uploadPart,
  CopyObject: copyObject,
  PutObject: putObject,
  ListParts: listParts,
  GetObject: getObject,
  HeadObject: headObject,
  AbortMultipartUpload: abortMultipartUpload,
  DeleteObject: deleteObject,
  CreateMultipartUpload: createMultipartUpload,
  CompleteMultipartUpload: completeMultipartUpload,
} satisfies Record<string, (exchange: Exchange) => Promise<void> | void>;

export type OperationName = keyof typeof OPERATION;
export const OPERATIONS = Object.keys(OPERATION) as [OperationName, ...OperationName[]];

interface Route {
  readonly on: 'service' | 'bucket' | 'object';
  readonly method: string;
  readonly operation: OperationName;
  /** Parameters, or headers, that make the request this one. */
  readonly marks?: readonly string[];
  /** Further parameters it understands. */
  readonly parameters?: readonly string[];
  /** Further `x-amz-` and conditional headers it understands; a name that ends in `-` stands for all that start so. */
  readonly headers?: readonly string[];
}

const PAGE = ['prefix', 'delimiter', 'max-keys', 'encoding-type'];
const CONDITIONS = ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range'];
const BODY = [
  'x-amz-checksum-',
  'x-amz-decoded-content-length',
  'x-amz-sdk-checksum-algorithm',
  'x-amz-trailer',
];
const READ = {
  parameters: [
    'response-cache-control',
    'response-content-disposition',
    'response-content-encoding',
    'response-content-language',
    'response-content-type',
    'response-expires',
  ],
  headers: [...CONDITIONS, 'x-amz-checksum-mode'],
};

// Those with more marks come first.
const ROUTES: readonly Route[] = [
  { on: 'service', method: 'GET', operation: 'ListBuckets' },

  { on: 'bucket', method: 'PUT', operation: 'CreateBucket', headers: BODY },
  { on: 'bucket', method: 'HEAD', operation: 'HeadBucket' },
  { on: 'bucket', method: 'DELETE', operation: 'DeleteBucket' },
  { on: 'bucket', method: 'GET', marks: ['location'], operation: 'GetBucketLocation' },
  {
    on: 'bucket',
    method: 'GET',
    marks: ['uploads'],
    parameters: ['prefix', 'key-marker', 'upload-id-marker', 'max-uploads', 'encoding-type'],
    operation: 'ListMultipartUploads',
  },
  {
    on: 'bucket',
    method: 'GET',
    marks: ['list-type'],
    parameters: [...PAGE, 'continuation-token', 'start-after', 'fetch-owner'],
    operation: 'ListObjectsV2',
  },
  { on: 'bucket', method: 'GET', parameters: [...PAGE, 'marker'], operation: 'ListObjects' },
  { on: 'bucket', method: 'POST', marks: ['delete'], headers: BODY, operation: 'DeleteObjects' },

  {
    on: 'object',
    method: 'PUT',
    marks: ['partNumber', 'uploadId'],
    headers: BODY,
    operation: 'UploadPart',
  },
  {
    on: 'object',
    method: 'PUT',
    marks: ['x-amz-copy-source'],
    headers: ['x-amz-metadata-directive', 'x-amz-meta-'],
    operation: 'CopyObject',
  },
  {
    on: 'object',
    method: 'PUT',
    headers: [...BODY, 'if-match', 'if-none-match', 'x-amz-meta-'],
    operation: 'PutObject',
  },
  {
    on: 'object',
    method: 'GET',
    marks: ['uploadId'],
    parameters: ['max-parts', 'part-number-marker'],
    operation: 'ListParts',
  },
  { on: 'object', method: 'GET', ...READ, operation: 'GetObject' },
  { on: 'object', method: 'HEAD', ...READ, operation: 'HeadObject' },
  { on: 'object', method: 'DELETE', marks: ['uploadId'], operation: 'AbortMultipartUpload' },
  { on: 'object', method: 'DELETE', operation: 'DeleteObject' },
  {
    on: 'object',
    method: 'POST',
    marks: ['uploads'],
    headers: ['x-amz-checksum-algorithm', 'x-amz-checksum-type', 'x-amz-meta-'],
    operation: 'CreateMultipartUpload',
  },
  {
    on: 'object',
    method: 'POST',
    marks: ['uploadId'],
    // Not `x-amz-checksum-`: here it would be that of the object, not of the body.
    headers: ['if-none-match'],
    operation: 'CompleteMultipartUpload',
  },
];

const ALWAYS = {
  // The SDK names the operation in x-id.
  parameters: ['x-id'],
  headers: [
    'x-amz-algorithm',
    'x-amz-content-sha256',
    'x-amz-credential',
    'x-amz-date',
    'x-amz-expires',
    'x-amz-signature',
    'x-amz-signedheaders',
    'x-amz-user-agent',
  ],
};

/**
 * What the request asks for. Throws MethodNotAllowed, and NotImplemented for a sub-resource, a
 * parameter or a header that asks for something this store does not do: an encryption, a lock or an
 * access list that is quietly passed over would be a wrong success.
 */
export function route(request: S3Request): OperationName {
  const on = request.key !== undefined ? 'object' : request.bucket !== undefined ? 'bucket' : 'service';
  const has = (mark: string) => request.query.has(mark) || request.header(mark) !== undefined;
  const found = ROUTES.find(
    (candidate) =>
      candidate.on === on && candidate.method === request.method && (candidate.marks ?? []).every(has),
  );
  if (!found) {
    throw new S3Error(request.query.size > 0 ? 'NotImplemented' : 'MethodNotAllowed');
  }
  const parameters = [...(found.marks ?? []), ...(found.parameters ?? []), ...ALWAYS.parameters];
  for (const name of request.query.keys()) {
    if (!parameters.includes(name) && !isAmzHeader(name)) {
      throw new S3Error('NotImplemented', `This store does not know the parameter ${name} here.`);
    }
  }
  const headers = [...(found.marks ?? []), ...(found.headers ?? []), ...ALWAYS.headers];
  for (const name of request.headerNames()) {
    if (!isAmzHeader(name) && !CONDITIONS.includes(name)) continue;
    if (!headers.some((known) => name === known || (known.endsWith('-') && name.startsWith(known)))) {
      throw new S3Error('NotImplemented', `This store does not know the header ${name} here.`);
    }
  }
  return found.operation;
}

export async function run(operation: OperationName, exchange: Exchange): Promise<void> {
  await OPERATION[operation](exchange);
}
