import type { S3Request } from './http/s3-request.js';
import type { OperationName } from './operations/route.js';
import { S3Error } from './s3-error.js';

/** Vendors whose store this one can pass for, where that is narrower than S3. */
export const VENDORS = ['ncp'] as const;
export type Vendor = (typeof VENDORS)[number];

/**
 * Makes of a request what the vendor's store would. Throws what it answers to what it does not do.
 *
 * ncp, NAVER Cloud Object Storage: no ListObjectsV2 (https://api.ncloud-docs.com/docs/en/storage-objectstorage-index,
 * which names no error: NotImplemented is S3's own for it), and 403 for the checksums that SDKs send by default since
 * 2025. Nothing is said of conditional writes, so the worst is taken: the condition is passed over in silence.
 */
export function asVendor(vendor: Vendor | undefined, request: S3Request, operation: OperationName): void {
  if (vendor === undefined) return;
  if (operation === 'ListObjectsV2') throw new S3Error('NotImplemented', 'Use ListObjects.');
  for (const name of request.headerNames()) {
    if (/^x-amz-(checksum-|sdk-checksum-|trailer$)/.test(name)) throw new S3Error('AccessDenied');
  }
  if (request.method !== 'PUT' && request.method !== 'POST') return;
  for (const name of ['if-match', 'if-none-match']) request.passOver(name);
}
