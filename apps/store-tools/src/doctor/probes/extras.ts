import { CompleteMultipartUploadCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import { describe } from '../../store.js';
import { postForm, presignPut } from './signed.js';
import { either, type Finding, isNamed, no, type Probe } from './probe.js';

const IGNORED = 'the condition is ignored: a second write replaces the first';
const FIRST_WINS = 'of requests at once under one Idempotency-Key the first wins';
const LAST_WINS = 'of requests at once under one Idempotency-Key the last wins';

/** What vendors differ in; Naru works without. */
export const EXTRAS: readonly Probe[] = [
  {
    name: 'conditional put',
    isNeeded: false,
    after: ['put', 'get'],
    run: async (bench, signal) => {
      await bench.put('once', 'first', signal, { IfNoneMatch: '*' });
      return refused(() => bench.put('once', 'second', signal, { IfNoneMatch: '*' }));
    },
    does: (outcome, { conditionalPut }) => {
      if (outcome === 'yes')
        return conditionalPut ? FIRST_WINS : `with S3_CONDITIONAL_PUT=true, ${FIRST_WINS}`;
      return conditionalPut ? `set S3_CONDITIONAL_PUT=false; ${LAST_WINS}` : `Naru looks first; ${LAST_WINS}`;
    },
  },
  {
    name: 'conditional complete',
    isNeeded: false,
    after: ['put', 'multipart'],
    run: async (bench, abortSignal) => {
      const upload = await bench.begin('object', 'second', abortSignal);
      return refused(() =>
        bench.s3.send(new CompleteMultipartUploadCommand({ ...upload, IfNoneMatch: '*' }), { abortSignal }),
      );
    },
    does: either(
      'the same holds for images above S3_PART_BYTES',
      `with images above S3_PART_BYTES, ${LAST_WINS}`,
    ),
  },
  {
    name: 'list, version 2',
    isNeeded: false,
    after: ['list'],
    run: async (bench, abortSignal) => {
      const list = { Bucket: bench.bucket, Prefix: bench.prefix, MaxKeys: 1 };
      const first = await bench.s3.send(new ListObjectsV2Command(list), { abortSignal });
      // One that doesn't know list-type answers as version 1.
      const token = first.NextContinuationToken;
      if (token === undefined) return no('it is answered as version 1');
      const next = new ListObjectsV2Command({ ...list, ContinuationToken: token });
      const second = await bench.s3.send(next, { abortSignal });
      return first.Contents?.[0]?.Key === second.Contents?.[0]?.Key ? no('a page is repeated') : undefined;
    },
    does: () => 'Naru does not use it',
  },
  {
    name: 'checksums',
    isNeeded: false,
    after: ['put'],
    run: async (bench, signal) => {
      await bench.put('summed', 'summed', signal, { ChecksumAlgorithm: 'CRC32' });
      try {
        await bench.put('summed', 'summed', signal, { ChecksumCRC32: 'AAAAAA==' });
      } catch {
        return undefined;
      }
      return no('a checksum is taken, but not compared');
    },
    does: () =>
      'Naru sends none (some vendors refuse them); over http its signature guards the bytes, over https TLS',
  },
  {
    name: 'presigned PUT',
    isNeeded: false,
    after: ['put', 'get'],
    run: async (bench, signal) => {
      const url = await presignPut(bench, 'presigned');
      const response = await fetch(url, { method: 'PUT', body: 'presigned', signal });
      return await came(response, () => bench.get('presigned', signal), 'presigned');
    },
    does: () => 'Naru does not use it: each image is checked on its way',
  },
  {
    name: 'presigned POST',
    isNeeded: false,
    after: ['put', 'get'],
    run: async (bench, signal) => {
      const { url, form } = await postForm(bench, 'posted', 'posted');
      const response = await fetch(url, { method: 'POST', body: form, signal });
      return await came(response, () => bench.get('posted', signal), 'posted');
    },
    does: () => 'Naru does not use it: each image is checked on its way',
  },
];

/** Whether the store keeps to the condition of a write that must not replace an object. */
async function refused(write: () => Promise<unknown>): Promise<Finding | undefined> {
  try {
    await write();
  } catch (error) {
    if (isNamed(error, 'PreconditionFailed')) return undefined;
    throw error;
  }
  return no(IGNORED);
}

async function came(
  response: Response,
  get: () => Promise<string>,
  bytes: string,
): Promise<Finding | undefined> {
  const answer = await response.text();
  if (response.ok) return (await get()) === bytes ? undefined : no('the bytes are not those that were put');
  const code = /<Code>(\w+)<\/Code>/.exec(answer)?.[1] ?? 'no S3 error';
  const isTrouble = response.status >= 500 && response.status !== 501;
  return { outcome: isTrouble ? 'failed' : 'no', detail: describe(`${code} (${response.status})`) };
}
