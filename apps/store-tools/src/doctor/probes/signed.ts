import { SignatureV4 } from '@smithy/signature-v4';
import { bucketUrl } from '../../store.js';
import { type Bench } from '../bench.js';

const EXPIRES_S = 60;

/** The URL that lets whoever has it put the object. */
export async function presignPut(bench: Bench, name: string): Promise<URL> {
  const url = objectUrl(bench, name);
  const signed = await (
    await signer(bench)
  ).presign(
    {
      method: 'PUT',
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      headers: { host: url.host, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' },
      query: {},
    },
    // Hoisted into the query, it would have to be sent as a header by some vendors.
    { expiresIn: EXPIRES_S, unhoistableHeaders: new Set() },
  );
  for (const [parameter, value] of Object.entries(signed.query ?? {})) {
    url.searchParams.set(parameter, String(value));
  }
  return url;
}

/**
 * A form that lets whoever has it post the object, with its bytes:
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
 */
export async function postForm(bench: Bench, name: string, bytes: string) {
  const key = bench.key(name);
  const { accessKeyId, sessionToken } = await bench.s3.config.credentials();
  const now = new Date();
  const date = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const fields: Record<string, string> = {
    key,
    'x-amz-algorithm': 'AWS4-HMAC-SHA256',
    'x-amz-credential': `${accessKeyId}/${date.slice(0, 8)}/${bench.options.region}/s3/aws4_request`,
    'x-amz-date': date,
    ...(sessionToken !== undefined && { 'x-amz-security-token': sessionToken }),
  };
  const policy = {
    expiration: new Date(now.getTime() + EXPIRES_S * 1000).toISOString(),
    conditions: [
      { bucket: bench.bucket },
      ...Object.entries(fields).map(([field, value]) => ({ [field]: value })),
    ],
  };
  const policy64 = Buffer.from(JSON.stringify(policy)).toString('base64');
  const signature = await (await signer(bench)).sign(policy64, { signingDate: now });
  const form = new FormData();
  for (const [field, value] of Object.entries({
    ...fields,
    policy: policy64,
    'x-amz-signature': signature,
  })) {
    form.set(field, value);
  }
  form.set('file', new Blob([bytes]));
  return { url: bucketUrl(bench.options), form };
}

function objectUrl(bench: Bench, name: string): URL {
  const url = bucketUrl(bench.options);
  url.pathname = `${url.pathname.replace(/\/$/, '')}/${bench.key(name)}`;
  return url;
}

async function signer({ s3, options }: Bench): Promise<SignatureV4> {
  return new SignatureV4({
    credentials: await s3.config.credentials(),
    region: options.region,
    service: 's3',
    sha256: s3.config.sha256,
    uriEscapePath: false,
  });
}
