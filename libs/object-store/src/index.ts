export { setAwakeTimeout } from './awake-timeout.js';
export * from './object-store.js';
export { S3ObjectStore, uploadMemoryBytes, type S3Options } from './s3/s3-object-store.js';
export { S3_RULE, S3_VARIABLES, toS3Options } from './s3/s3-env.js';
export { TimeIsUpError, within } from './within.js';
