export * from './object-store.js';
export { S3ObjectStore, uploadMemoryBytes, type S3Options } from './s3/s3-object-store.js';
