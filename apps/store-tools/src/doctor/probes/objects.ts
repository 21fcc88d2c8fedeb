import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  DeleteObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  ListPartsCommand,
} from '@aws-sdk/client-s3';
import { isNamed, needed, no, type Probe } from './probe.js';

const BYTES = 'What Naru keeps has to come back byte for byte.';
const METADATA = { 'original-name': '%EC%82%AC%EC%A7%84.jpg', width: '640' };
const TYPE = 'image/webp';

/** What Naru can't do without. */
export const OBJECTS: readonly Probe[] = [
  {
    name: 'put',
    isNeeded: true,
    after: ['bucket'],
    run: async (bench, signal) => {
      await bench.put('object', BYTES, signal, { ContentType: TYPE, Metadata: METADATA });
      return undefined;
    },
    does: needed('puts an image of up to S3_PART_BYTES as one object'),
  },
  {
    name: 'get',
    isNeeded: true,
    after: ['put'],
    run: async (bench, signal) =>
      (await bench.get('object', signal)) === BYTES ? undefined : no('the bytes are not those that were put'),
    does: needed('serves images from it'),
  },
  {
    name: 'range',
    isNeeded: true,
    after: ['put'],
    run: async (bench, signal) =>
      (await bench.get('object', signal, 'bytes=5-8')) === BYTES.slice(5, 9)
        ? undefined
        : no('the bytes are not those asked for'),
    does: needed('answers Range requests by it'),
  },
  {
    name: 'head',
    isNeeded: true,
    after: ['put'],
    run: async (bench, abortSignal) => {
      const head = await bench.s3.send(new HeadObjectCommand(bench.at('object')), { abortSignal });
      if (head.ContentLength !== BYTES.length) return no('the length is not that of what was put');
      return head.ETag ? undefined : no('there is no ETag');
    },
    does: needed('answers HEAD and conditional reads by it'),
  },
  {
    name: 'metadata',
    isNeeded: true,
    after: ['put'],
    run: async (bench, abortSignal) => {
      const head = await bench.s3.send(new HeadObjectCommand(bench.at('object')), { abortSignal });
      if (head.ContentType !== TYPE) return no('the Content-Type is not the one that was put');
      const isKept = Object.entries(METADATA).every(([name, value]) => head.Metadata?.[name] === value);
      return isKept ? undefined : no('x-amz-meta- headers do not come back');
    },
    does: needed('keeps width, height, original name and time there, as it has no database'),
  },
  {
    name: 'list',
    isNeeded: true,
    after: ['put'],
    run: async (bench, abortSignal) => {
      await bench.put('other', BYTES, abortSignal);
      const list = { Bucket: bench.bucket, Prefix: bench.prefix, MaxKeys: 1 };
      const first = await bench.s3.send(new ListObjectsCommand(list), { abortSignal });
      const Marker = first.Contents?.[0]?.Key;
      const second = await bench.s3.send(new ListObjectsCommand({ ...list, Marker }), { abortSignal });
      const keys = [first, second].map(({ Contents = [] }) => Contents.map(({ Key }) => Key).join());
      return keys.join() === `${bench.prefix}object,${bench.prefix}other` && first.IsTruncated
        ? undefined
        : no('its pages do not hold every key once');
    },
    does: needed('lists images by it (ListObjects, version 1)'),
  },
  {
    name: 'copy onto itself',
    isNeeded: true,
    after: ['metadata'],
    run: async (bench, abortSignal) => {
      const { Bucket, Key } = bench.at('object');
      await bench.s3.send(
        new CopyObjectCommand({
          Bucket,
          Key,
          CopySource: `${Bucket}/${Key}`,
          MetadataDirective: 'REPLACE',
          ContentType: TYPE,
          Metadata: { ...METADATA, width: '641' },
        }),
        { abortSignal },
      );
      const head = await bench.s3.send(new HeadObjectCommand({ Bucket, Key }), { abortSignal });
      if (head.Metadata?.['width'] !== '641') return no('the metadata stays as it was');
      return (await bench.get('object', abortSignal)) === BYTES ? undefined : no('the bytes change');
    },
    does: needed('corrects the size in pixels of a large image whose head misstates it'),
  },
  {
    name: 'multipart',
    isNeeded: true,
    after: ['put'],
    run: async (bench, abortSignal) => {
      const upload = await bench.begin('large', BYTES, abortSignal);
      await bench.s3.send(new CompleteMultipartUploadCommand(upload), { abortSignal });
      return (await bench.get('large', abortSignal)) === BYTES
        ? undefined
        : no('the bytes are not those that were put');
    },
    does: needed('streams an image above S3_PART_BYTES in S3 parts'),
  },
  {
    name: 'abort',
    isNeeded: true,
    after: ['multipart'],
    run: async (bench, abortSignal) => {
      const { Bucket, Key, UploadId } = await bench.begin('aborted', BYTES, abortSignal);
      const upload = { Bucket, Key, UploadId };
      await bench.s3.send(new AbortMultipartUploadCommand(upload), { abortSignal });
      try {
        await bench.s3.send(new ListPartsCommand(upload), { abortSignal });
      } catch (error) {
        if (isNamed(error, 'NoSuchUpload')) return undefined;
        throw error;
      }
      return no('an aborted upload is still there');
    },
    does: needed('leaves no S3 part of a refused upload behind'),
  },
  {
    name: 'list uploads',
    isNeeded: true,
    after: ['multipart'],
    run: async (bench, abortSignal) => {
      const { Bucket, Key, UploadId } = await bench.begin('unfinished', BYTES, abortSignal);
      const list = new ListMultipartUploadsCommand({ Bucket, Prefix: Key });
      const { Uploads = [] } = await bench.s3.send(list, { abortSignal });
      return Uploads.some((upload) => upload.UploadId === UploadId)
        ? undefined
        : no('an unfinished upload is not listed');
    },
    does: needed('finds unfinished uploads by it, as npm run sweep does'),
  },
  {
    name: 'delete',
    isNeeded: true,
    after: ['put'],
    run: async (bench, abortSignal) => {
      await bench.put('deleted', BYTES, abortSignal);
      await bench.s3.send(new DeleteObjectCommand(bench.at('deleted')), { abortSignal });
      try {
        await bench.s3.send(new HeadObjectCommand(bench.at('deleted')), { abortSignal });
      } catch (error) {
        if (isNamed(error, 'NotFound', 'NoSuchKey')) return undefined;
        throw error;
      }
      return no('a deleted object is still there');
    },
    does: needed('deletes images, and what a refused upload stored'),
  },
];
