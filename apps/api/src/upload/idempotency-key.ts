import { createHmac, randomBytes } from 'node:crypto';
import { Problem } from '../problem/problem.js';

const KEY = /^[\x21-\x7e]{1,255}$/;

/**
 * What a client names a request by, so as to be able to send it again (draft-ietf-httpapi-idempotency-key-header).
 * The ids of its images follow from it, so that whichever replica takes the repeat meets in the store what the first
 * one left there: no replica has to know of another, and no database of any.
 */
export class IdempotencyKey {
  readonly #secret: Buffer;

  /**
   * `secret` is what every replica knows and no client: without one, whoever guesses a key knows the ids.
   *
   * @throws Problem INVALID_ARGUMENT
   */
  constructor(
    secret: string,
    private readonly caller: string | undefined,
    private readonly key: string,
  ) {
    if (!KEY.test(key)) {
      throw new Problem(
        'INVALID_ARGUMENT',
        'The Idempotency-Key has to be 1 to 255 visible ASCII characters, without spaces, and sent once; a UUID is a good one.',
      );
    }
    this.#secret = createHmac('sha256', secret).update('naru Idempotency-Key').digest();
  }

  /** 128 bits in hexadecimal, as those of any image. `position` counts the images of a request from 0. */
  imageId(position: number): string {
    // As JSON, no caller and key can be mistaken for another two; a caller without a name is null.
    const name = JSON.stringify([this.caller ?? null, this.key, position]);
    return createHmac('sha256', this.#secret).update(name).digest('hex').slice(0, 32);
  }
}

export function newNonce(): string {
  return randomBytes(16).toString('hex');
}
