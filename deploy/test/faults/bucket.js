// The bucket, looked at from outside of Naru.
import { ListMultipartUploadsCommand, paginateListObjectsV2, S3Client } from '@aws-sdk/client-s3';

export class Bucket {
  #client;

  constructor(endpoint, name, { S3_ACCESS_KEY_ID: accessKeyId, S3_SECRET_ACCESS_KEY: secretAccessKey }) {
    this.name = name;
    this.#client = new S3Client({
      endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    });
  }

  /** Of every object. */
  async keys() {
    const keys = [];
    for await (const { Contents } of paginateListObjectsV2({ client: this.#client }, { Bucket: this.name })) {
      keys.push(...(Contents ?? []).map(({ Key }) => Key));
    }
    return keys;
  }

  /** Keys of multipart uploads that are neither completed nor aborted. MinIO tells only of a key that is named in full. */
  async unfinished() {
    const { Uploads } = await this.#client.send(new ListMultipartUploadsCommand({ Bucket: this.name }));
    return (Uploads ?? []).map(({ Key, UploadId }) => `${Key} (S3 upload ${UploadId})`);
  }
}
