import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { credentials, EmbeddedStore, region } from './embedded-store.js';

let store: EmbeddedStore;
const Bucket = 'bucket';

beforeAll(async () => {
  store = await EmbeddedStore.start({ vendor: 'ncp' });
});

afterAll(async () => {
  await store.stop();
});

it('ncp has no ListObjectsV2', async () => {
  await expect(store.client.send(new ListObjectsV2Command({ Bucket }))).rejects.toMatchObject({
    name: 'NotImplemented',
  });
  expect((await store.client.send(new ListObjectsCommand({ Bucket }))).IsTruncated).toBe(false);
});

it('ncp refuses the checksums that an SDK sends by default', async () => {
  const client = new S3Client({
    endpoint: store.server.url,
    region,
    credentials,
    forcePathStyle: true,
  });
  await expect(client.send(new PutObjectCommand({ Bucket, Key: 'summed', Body: 'a' }))).rejects.toMatchObject(
    { name: 'AccessDenied', $metadata: { httpStatusCode: 403 } },
  );
  client.destroy();
  expect(await store.send({ path: '/bucket/summed' })).toMatchObject({ status: 404 });
});

it('ncp passes over the condition of a put and of a completion', async () => {
  const object = { Bucket, Key: 'conditional' };
  await store.client.send(new PutObjectCommand({ ...object, Body: 'first' }));
  await store.client.send(new PutObjectCommand({ ...object, Body: 'second', IfNoneMatch: '*' }));
  const upload = await store.client.send(new CreateMultipartUploadCommand(object));
  const { UploadId } = upload;
  const part = await store.client.send(
    new UploadPartCommand({ ...object, UploadId, PartNumber: 1, Body: 'third' }),
  );
  const MultipartUpload = { Parts: [{ PartNumber: 1, ETag: part.ETag }] };
  await store.client.send(
    new CompleteMultipartUploadCommand({ ...object, UploadId, MultipartUpload, IfNoneMatch: '*' }),
  );
  const { Body } = await store.client.send(new GetObjectCommand(object));
  expect(await Body!.transformToString()).toBe('third');
});

it('ncp still answers 304 to a read', async () => {
  const { ETag } = await store.client.send(new PutObjectCommand({ Bucket, Key: 'read', Body: 'a' }));
  const headers = { 'if-none-match': ETag! };
  expect(await store.send({ path: '/bucket/read', headers })).toMatchObject({ status: 304 });
});
