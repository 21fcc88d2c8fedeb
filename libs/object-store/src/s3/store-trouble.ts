import { StoreUnavailableError } from '../object-store.js';
import { TimeIsUpError } from '../within.js';

/** What the SDK's errors have in common; `name` is S3's own code where the store gave one. */
interface SdkError {
  readonly name?: string;
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

/** What failed, in words for whoever has to mend it; the SDK's own error, which names hosts and keys, is the cause. */
export function toStoreUnavailable(error: unknown): StoreUnavailableError {
  return error instanceof StoreUnavailableError
    ? error
    : new StoreUnavailableError(troubleOf(error), { cause: error });
}

/** No host, bucket or key is in it: /health shows it to anybody. */
function troubleOf(error: unknown): string {
  const { name = '', code, $metadata } = error as SdkError;
  const status = $metadata?.httpStatusCode;
  if (status === undefined) {
    // The SDK gives a broken connection the same name as a timeout of its own.
    return error instanceof TimeIsUpError ||
      (name === 'TimeoutError' && (code ?? 'ETIMEDOUT') === 'ETIMEDOUT')
      ? 'the object store does not answer in time'
      : "the object store can't be reached, or broke off";
  }
  // MinIO and others have words of their own for it, with 507 or another status.
  if (status === 507 || /StorageFull|InsufficientStorage|Quota/.test(name)) return 'the object store is full';
  if (/^Request(TimeTooSkewed|Expired|InTheFuture)$/.test(name)) {
    return "the object store's clock and that of this machine differ too much; set the one that is wrong";
  }
  if (status === 401 || status === 403) {
    return 'the object store refuses the credentials, or them this bucket';
  }
  if (name === 'NoSuchBucket') return 'the bucket does not exist; make it, or set S3_CREATE_BUCKET=true';
  if (status === 429 || /SlowDown|Throttl|TooManyRequests/.test(name)) {
    return 'the object store takes no more requests at the moment';
  }
  return `the object store answers ${status}`;
}
