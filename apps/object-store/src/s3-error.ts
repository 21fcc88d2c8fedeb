/**
 * What S3 answers when it refuses: status and the message a client reads. One table, so that a new
 * code does not compile until it has both.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 */
const ERRORS = {
  AccessDenied: [403, 'Access denied.'],
  AuthorizationHeaderMalformed: [400, 'The authorization header is malformed.'],
  AuthorizationQueryParametersError: [400, 'The query parameters of the signature are malformed.'],
  BadDigest: [400, 'The digest you sent is not that of the bytes received.'],
  BucketAlreadyOwnedByYou: [409, 'You already have this bucket.'],
  BucketNotEmpty: [409, 'The bucket is not empty.'],
  EntityTooLarge: [400, 'The object is larger than 5 GiB.'],
  EntityTooSmall: [400, 'Every part but the last has to have at least 5 MiB.'],
  IncompleteBody: [400, 'The body is not as long as was announced.'],
  InternalError: [500, 'The store failed.'],
  InvalidAccessKeyId: [403, 'There is no such access key.'],
  InvalidArgument: [400, 'An argument is invalid.'],
  InvalidBucketName: [400, 'The bucket name is not valid.'],
  InvalidDigest: [400, 'Content-MD5 is not the base64 of 16 bytes.'],
  InvalidPart: [400, 'A part is missing, or its entity tag is another.'],
  InvalidPartOrder: [400, 'The parts are not in ascending order.'],
  InvalidRange: [416, 'The range does not overlap the object.'],
  InvalidRequest: [400, 'The request is invalid.'],
  InvalidToken: [400, 'This store knows no session tokens.'],
  InvalidURI: [400, 'The address cannot be parsed.'],
  KeyTooLongError: [400, 'A key has at most 1,024 bytes.'],
  MalformedXML: [400, 'The XML is not well-formed or not what is expected here.'],
  MaxMessageLengthExceeded: [400, 'The XML is too long.'],
  MetadataTooLarge: [400, 'User metadata has at most 2 KiB.'],
  MethodNotAllowed: [405, 'This method is not allowed here.'],
  MissingContentLength: [411, 'Content-Length is missing.'],
  NoSuchBucket: [404, 'There is no such bucket.'],
  NoSuchKey: [404, 'There is no such key.'],
  NoSuchUpload: [404, 'There is no such multipart upload; it may be completed or aborted.'],
  NotImplemented: [501, 'This store does not do that.'],
  PreconditionFailed: [412, 'A precondition did not hold.'],
  RequestTimeTooSkewed: [403, 'The time of the request is more than 15 minutes from ours.'],
  SignatureDoesNotMatch: [403, 'The signature is not the one computed here.'],
  XAmzContentSHA256Mismatch: [400, 'x-amz-content-sha256 is not the hash of the bytes received.'],
} as const satisfies Record<string, readonly [status: number, message: string]>;

export type S3ErrorCode = keyof typeof ERRORS;

/** A refusal as S3 words it. `headers` go out with the answer. */
export class S3Error extends Error {
  override readonly name = 'S3Error';
  readonly status: number;

  constructor(
    readonly code: S3ErrorCode,
    message: string = ERRORS[code][1],
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.status = ERRORS[code][0];
  }
}
