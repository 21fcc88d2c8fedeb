/** Every code a client can meet, and the HTTP status it goes with. A new code does not compile without both. */
export const PROBLEMS = {
  MALFORMED_MULTIPART: { status: 400, title: 'The multipart body is malformed' },
  NO_IMAGE: { status: 400, title: 'The request holds no image' },
  UNEXPECTED_FIELD: { status: 400, title: 'The form holds a field that is not expected' },
  TOO_MANY_IMAGES: { status: 400, title: 'Too many images in one request' },
  INVALID_ARGUMENT: { status: 400, title: 'An argument is invalid' },
  UNAUTHENTICATED: { status: 401, title: 'An API key is needed' },
  NOT_FOUND: { status: 404, title: 'Not found' },
  METHOD_NOT_ALLOWED: { status: 405, title: 'The method is not allowed here' },
  UPLOAD_TIMEOUT: { status: 408, title: 'The upload took too long' },
  IMAGE_TOO_LARGE: { status: 413, title: 'The image is too large' },
  UNSUPPORTED_IMAGE: { status: 415, title: 'The image is of a type that is not accepted' },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, title: 'The request is not multipart/form-data' },
  RANGE_NOT_SATISFIABLE: { status: 416, title: 'The range lies outside the image' },
  CORRUPT_IMAGE: { status: 422, title: 'The image is damaged' },
  TOO_MANY_PIXELS: { status: 422, title: 'The image has too many pixels' },
  IDEMPOTENCY_KEY_REUSED: { status: 422, title: 'The Idempotency-Key stands for other bytes' },
  INTERNAL: { status: 500, title: 'Something went wrong on our side' },
  STORE_UNAVAILABLE: { status: 503, title: 'The object store is not available' },
  DRAINING: { status: 503, title: 'This replica is shutting down' },
  OVERLOADED: { status: 503, title: 'Too many uploads at the moment' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ProblemCode = keyof typeof PROBLEMS;

/** Something a client is told about; what made it, if not the client, is the cause, for the log only. */
export class Problem extends Error {
  override readonly name = 'Problem';

  constructor(
    readonly code: ProblemCode,
    /** A sentence for the client: what was wrong, what was expected, how to mend it. */
    readonly detail: string,
    options?: { cause?: unknown },
  ) {
    super(detail, options);
  }
}

/** Nobody is left to read an answer; the log and the metrics say so. */
export class ClientGoneError extends Error {
  override readonly name = 'ClientGoneError';
  readonly code = 'CLIENT_GONE';
}

/** RFC 9457, application/problem+json, with two members of ours: `code` and `requestId`. */
export interface ProblemBody {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ProblemCode;
  requestId: string;
}

export function problemBody({ code, detail }: Problem, requestId: string): ProblemBody {
  const { status, title } = PROBLEMS[code];
  const type = `urn:naru:problem:${code.toLowerCase().replaceAll('_', '-')}`;
  return { type, title, status, detail, code, requestId };
}

/** The headers that RFC 9110 wants beside a status: Retry-After with 503, WWW-Authenticate with 401. */
export function problemHeaders(code: ProblemCode): Record<string, string> {
  const { status } = PROBLEMS[code];
  if (status === 503) return { 'Retry-After': '2' };
  if (status === 401) return { 'WWW-Authenticate': 'Bearer realm="naru"' };
  return {};
}
