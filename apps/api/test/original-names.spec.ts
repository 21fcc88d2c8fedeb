import { parse } from 'content-disposition';
import { BOUNDARY, Bucket, Replica, smallPhoto } from './harness.js';

const family = '👨‍👩‍👧‍👦';

describe('the original name of an image', () => {
  let bucket: Bucket;
  let replica: Replica;
  let photo: Buffer;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await Replica.start(bucket);
    photo = await smallPhoto(16);
  });
  afterEach(() => bucket.empty());
  afterAll(async () => {
    await replica.close();
    await bucket.close();
  });

  /** Sends one image whose form part has this, byte for byte, behind its field name. */
  function upload(parameter: string | Buffer) {
    const body = Buffer.concat([
      Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: form-data; name="images"; `),
      Buffer.from(parameter as string),
      Buffer.from('\r\nContent-Type: image/jpeg\r\n\r\n'),
      photo,
      Buffer.from(`\r\n--${BOUNDARY}--\r\n`),
    ]);
    return replica.http
      .post('/images')
      .set('Content-Type', `multipart/form-data; boundary=${BOUNDARY}`)
      .send(body);
  }

  /** The name as each place tells it that a user can see. */
  async function names(parameter: string | Buffer): Promise<string> {
    const { body } = await upload(parameter).expect(201);
    const [image] = body.images;
    const info = await replica.http.get(`${image.url}/info`).expect(200);
    expect(info.body.originalName).toBe(image.originalName);
    for (const read of [await replica.http.get(image.url), await replica.http.head(image.url)]) {
      const header = read.headers['content-disposition'] as string;
      expect(header).toMatch(/^inline; [\x20-\x7e]+$/);
      expect(parse(header).parameters['filename']).toBe(image.originalName);
      // Nothing but the headers that every image has came out of it.
      expect(Object.keys(read.headers)).not.toContain('x-injected');
      expect(read.headers['content-type']).toBe('image/jpeg');
    }
    expect(await bucket.keys()).toEqual([`images/${image.id}`]);
    expect(image.id).toMatch(/^[\da-f]{32}$/);
    return image.originalName as string;
  }

  it.each([
    ['Korean', 'filename="제주도 바다.jpg"', '제주도 바다.jpg'],
    ['Korean from macOS', `filename="${'제주도.jpg'.normalize('NFD')}"`, '제주도.jpg'],
    ['Japanese, Arabic and accents', 'filename="写真 صورة é.jpg"', '写真 صورة é.jpg'],
    ['emoji of several code points', `filename="${family}🏳️‍🌈.jpg"`, `${family}🏳️‍🌈.jpg`],
    ['quotes as browsers send them', 'filename="a %22b%22.jpg"', 'a "b".jpg'],
    ['quotes as older clients send them', 'filename="a \\"b\\".jpg"', 'a "b".jpg'],
    ['a percent sign', 'filename="100%.jpg"', '100%.jpg'],
    ['what looks like an escape but is none', 'filename="a%20b%41%2e.jpg"', 'a%20b%41%2e.jpg'],
    ['a line break as browsers send it', 'filename="a%0D%0Ab.jpg"', 'a\r\nb.jpg'],
    ['semicolons, commas and equals signs', 'filename="a; b=c, d.jpg"', 'a; b=c, d.jpg'],
    ['a single quote and brackets', 'filename="it\'s (1) [2] {3} <4>.jpg"', "it's (1) [2] {3} <4>.jpg"],
    ['a name without quotes around it', 'filename=plain.jpg', 'plain.jpg'],
    ['folders upwards', 'filename="../../x.jpg"', 'x.jpg'],
    ['folders of Windows', 'filename="C:\\x\\y.jpg"', 'y.jpg'],
    ['folders of Windows, escaped', 'filename="C:\\\\x\\\\y.jpg"', 'y.jpg'],
    ['no name but a folder upwards', 'filename=".."', 'image'],
    ['only an extension', 'filename=".jpg"', '.jpg'],
    ['no extension', 'filename="photo"', 'photo'],
    ['the extended form', "filename*=UTF-8''%EC%A0%9C%EC%A3%BC%20a%22.jpg", '제주 a".jpg'],
    [
      'both forms, of which the extended one counts',
      'filename="x.jpg"; filename*=utf-8\'ko\'%EC%A0%9C.jpg',
      '제.jpg',
    ],
    ['the extended form upwards', "filename*=UTF-8''..%2F..%2Fx.jpg", 'x.jpg'],
    ['a name of a header', 'filename="__proto__"', '__proto__'],
  ])('comes back right: %s', async (_what, parameter, name) => {
    expect(await names(parameter)).toBe(name);
  });

  it.each([
    ['ASCII', 'x'],
    ['Korean', '한'],
    ['quotes as browsers send them', '%22', '"'],
    ['line breaks as browsers send them', '%0D%0A', '\r\n'],
    ['families', family],
  ])('comes back shortened when it has 10 kB: %s', async (_what, sent, character = sent) => {
    const name = await names(`filename="${sent.repeat(Math.floor(10_000 / Buffer.byteLength(sent)))}.jpg"`);
    const times = Math.floor(251 / Buffer.byteLength(character));
    expect(name).toBe(`${character.repeat(times)}.jpg`);
  });

  it.each([
    ['bytes that are no UTF-8', [0xff, 0xfe, 0x80], '\ufffd\ufffd\ufffd'],
    ['Korean in EUC-KR', [0xc1, 0xa6], '\ufffd\ufffd'],
    ['a surrogate alone', [0xed, 0xa0, 0xbd], '\ufffd\ufffd\ufffd'],
    ['a character cut off', [0xed, 0x95], '\ufffd'],
  ])('has a replacement character in the place of %s', async (_what, bytes, replaced) => {
    const parameter = [Buffer.from('filename="a'), Buffer.from(bytes), Buffer.from('b.jpg"')];
    expect(await names(Buffer.concat(parameter))).toBe(`a${replaced}b.jpg`);
  });

  it.each([
    ['as browsers would send it', 'filename="a%22%0D%0AX-Injected: yes%0D%0A%0D%0A<script>.jpg"'],
    ['escaped for the extended form', "filename*=UTF-8''a%0D%0AX-Injected%3A%20yes%0D%0A%0D%0A.jpg"],
  ])('injects no header, %s', async (_what, parameter) => {
    expect(await names(parameter)).toContain('\r\nX-Injected: yes\r\n\r\n');
  });

  it.each([
    ['CR and LF', 'filename="a\r\nX-Injected: yes\r\nb.jpg"'],
    ['LF', 'filename="a\nX-Injected: yes\nb.jpg"'],
    ['NUL', 'filename="a\0b.jpg"'],
  ])('is refused with everything else when it holds a raw %s', async (_what, parameter) => {
    const { body, headers } = await upload(parameter).expect(400);
    expect(headers['content-type']).toBe('application/problem+json; charset=utf-8');
    expect(headers['x-injected']).toBeUndefined();
    expect(body.code).toBe('MALFORMED_MULTIPART');
    expect(await bucket.keys()).toEqual([]);
  });
});
