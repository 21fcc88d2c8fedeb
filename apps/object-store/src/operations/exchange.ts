import type { ServerResponse } from 'node:http';
import type { RequestBody } from '../body/request-body.js';
import type { S3Request } from '../http/s3-request.js';
import type { DataDirectory } from '../storage/data-directory.js';
import type { Uploads } from '../storage/uploads.js';

/** One request whose signature held, and what it takes to answer it. */
export interface Exchange {
  readonly request: S3Request;
  readonly response: ServerResponse;
  /** Empty where the request is not about one. */
  readonly bucket: string;
  readonly key: string;
  readonly body: RequestBody;
  readonly directory: DataDirectory;
  readonly uploads: Uploads;
  readonly region: string;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}
