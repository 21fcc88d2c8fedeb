import sharp from 'sharp';
import { acceptedImages } from '../test/accepted.js';
import { inspect, inspector, random, verdict } from '../test/inspect.js';
import { ImageError } from './index.js';

const accepted = Object.entries(await acceptedImages());

describe('an image that cameras, phones and editors write', () => {
  it.each(accepted)(
    'is accepted however its bytes are cut into chunks: %s',
    (_, { bytes, type, width, height }) => {
      const info = { contentType: type, width, height };
      expect(inspect(bytes)).toEqual(info);
      const smallest = bytes.length < 100_000 ? 1 : 61;
      expect(inspect(bytes, { chunkBytes: () => smallest })).toEqual(info);
      const upTo = random(bytes.length);
      for (const largest of [3, 17, 300, 70_000]) {
        expect(inspect(bytes, { chunkBytes: () => 1 + upTo(largest) })).toEqual(info);
      }
    },
  );

  it.each(accepted)(
    'is refused when it ends at any byte before its own end: %s',
    (_, { bytes, type, trailer = 0 }) => {
      const end = bytes.length - trailer;
      const step = Math.ceil(bytes.length / 10_000);
      for (let length = 0; length < end; length = length < end - 100 ? length + step : length + 1) {
        const answer = verdict(bytes.subarray(0, length));
        if (!/^(CORRUPT|UNSUPPORTED)_IMAGE$/.test(answer)) {
          throw new Error(`${length} of ${end} bytes of this ${type} are taken for a whole: ${answer}`);
        }
      }
      for (let length = end; length <= bytes.length; length++) {
        expect(verdict(bytes.subarray(0, length))).toContain(type);
      }
    },
  );

  it.each(accepted.filter(([, { undecodable }]) => !undecodable))(
    'is measured as a decoder shows it: %s',
    async (_, { bytes, width, height }) => {
      const { autoOrient } = await sharp(bytes).metadata();
      expect(autoOrient).toEqual({ width, height });
    },
  );

  it('keeps nothing of a chunk, which its owner may use again', () => {
    const upTo = random(7);
    for (const [, { bytes, type }] of accepted.filter(([, fixture]) => fixture.bytes.length < 20_000)) {
      const image = inspector();
      const chunk = Buffer.alloc(64);
      for (let at = 0; at < bytes.length;) {
        const length = bytes.copy(chunk, 0, at, at + 1 + upTo(64));
        image.push(chunk.subarray(0, length));
        chunk.fill(0xee);
        at += length;
      }
      expect(image.finish().contentType).toBe(type);
    }
  });

  it('takes any Uint8Array, and empty chunks', () => {
    const { bytes, width, height } = accepted[0]![1];
    const image = inspector();
    image.push(new Uint8Array(0));
    image.push(new Uint8Array(bytes));
    image.push(new Uint8Array(0));
    expect(image.finish()).toEqual({ contentType: 'image/jpeg', width, height });
    expect(image.finish()).toEqual(image.info);
  });
});

describe('what the header tells', () => {
  it.each(['a baseline JPEG', 'a PNG', 'a GIF', 'a lossy WebP', 'an animated WebP', 'an AVIF'])(
    'is known before the pixels come: %s',
    (name) => {
      const { bytes, type, width, height } = accepted.find(([its]) => its === name)![1];
      const image = inspector();
      let read = 0;
      while (!image.info) image.push(bytes.subarray(read, ++read));
      expect(image.info).toEqual({ contentType: type, width, height });
      expect(read).toBeLessThan(bytes.length - 100);
    },
  );

  it('turns when EXIF comes after the pixels', () => {
    const { bytes } = accepted.find(([its]) => its === 'a WebP turned by EXIF after its pixels')![1];
    const image = inspector();
    image.push(bytes.subarray(0, 100));
    expect(image.info).toMatchObject({ width: 33, height: 25 });
    image.push(bytes.subarray(100));
    expect(image.finish()).toMatchObject({ width: 25, height: 33 });
  });
});

describe('an image somebody damaged', () => {
  it('is accepted or refused, and nothing else, whatever its bytes are', () => {
    const small = accepted.filter(([, { bytes }]) => bytes.length < 10_000);
    const upTo = random(20_261_121);
    for (let round = 0; round < 10_000; round++) {
      const bytes = Buffer.from(small[upTo(small.length)]![1].bytes);
      // Most of what can go wrong goes wrong in the header.
      const reach = upTo(2) === 0 ? bytes.length : Math.min(bytes.length, 400);
      for (let changes = 1 + upTo(6); changes > 0; changes--) {
        bytes[upTo(reach)] = upTo(3) === 0 ? [0, 1, 0x7f, 0x80, 0xff][upTo(5)]! : upTo(256);
      }
      const largest = 1 + upTo(bytes.length);
      expect(verdict(bytes, { chunkBytes: () => 1 + upTo(largest) })).not.toBe('');
    }
  });

  it('is refused with the same error again, whatever comes after it', () => {
    const image = inspector();
    let first: unknown;
    try {
      image.push(Buffer.from('GIF89a\0\0\0\0\0\0\0'));
    } catch (error) {
      first = error;
    }
    expect(first).toBeInstanceOf(ImageError);
    expect(() => {
      image.push(accepted[0]![1].bytes);
    }).toThrow(first as ImageError);
    expect(() => image.finish()).toThrow(first as ImageError);
  });
});
