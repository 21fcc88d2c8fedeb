import { sendEmpty, sendXml } from '../http/answer.js';
import type { Exchange } from './exchange.js';

/** The only owner there is. */
export const OWNER = { ID: 'naru', DisplayName: 'naru' };

export async function listBuckets({ directory, response }: Exchange): Promise<void> {
  const buckets = await directory.buckets();
  sendXml(response, 'ListAllMyBucketsResult', {
    Owner: OWNER,
    Buckets: {
      Bucket: buckets.map(({ name, createdMs }) => ({
        Name: name,
        CreationDate: new Date(createdMs).toISOString(),
      })),
    },
  });
}

/** The location asked for in the body is not looked at: there is one region. */
export async function createBucket({ bucket, body, directory, response }: Exchange): Promise<void> {
  await body.text(64 * 1024);
  await directory.createBucket(bucket);
  sendEmpty(response, 200, { location: `/${bucket}` });
}

export function headBucket({ bucket, directory, region, response }: Exchange): void {
  directory.requireBucket(bucket);
  sendEmpty(response, 200, { 'x-amz-bucket-region': region });
}

export async function deleteBucket({ bucket, directory, response }: Exchange): Promise<void> {
  await directory.deleteBucket(bucket);
  sendEmpty(response, 204);
}

/** Empty for us-east-1, which is how S3 has always named it. */
export function getBucketLocation({ bucket, directory, region, response }: Exchange): void {
  directory.requireBucket(bucket);
  sendXml(response, 'LocationConstraint', region === 'us-east-1' ? '' : region);
}
