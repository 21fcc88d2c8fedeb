import { createHash } from 'node:crypto';
import { type Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ObjectHead, ObjectExistsError, type Owner, StoreUnavailableError } from '../object-store.js';

/*
 * Several requests may put the same bytes under one key at once: nginx asks another replica while the first one
 * hangs, a client repeats what it had no answer to. One of them puts; each may be refused later for another image's
 * sake, or find its client gone, and must then take back what it put, unless another was told of it:
 *
 *     absent ── put if absent ──▶ owned, by the nonce of who put it ── a repeat claims it ──▶ kept, by nobody
 *        ▲                            │
 *        └── its owner takes it back ─┘
 *
 * - The first is answered with its object owned. Only it could take it back, and having answered it doesn't.
 * - A repeat that finds the same bytes puts them again without an owner before it answers. Whoever wakes up or is
 *   refused after that finds that the object isn't its own any more, and leaves it.
 * - A claim puts over what was found alone (If-Match), so that it can't meet what somebody else has put since.
 * - The owner's look and its delete are two requests: a claim may fall between them. So a repeat looks again after
 *   LOOK_AGAIN_MS, and puts once more what is gone by then. Where the two took the owner longer, it puts the object back,
 *   without an owner: a repeat may have been answered, and what nobody was told of is the lesser evil.
 * - A repeat that is refused takes nothing back: the first may have been answered. So of two that overlap and are
 *   both refused, an object may stay.
 * - An object in S3 parts can't be claimed, since its bytes are gone when it is found to be the same. So its owner takes
 *   it back only while its own client still waits for the answer, and leaves it afterwards. What remains: two requests on
 *   their way at the same moment, of which one is answered and the other is refused for another image's sake.
 * - Without conditional puts the last of two at once wins. There an owner leaves its object likewise: it may have hung
 *   in the middle of its put, and put over what a repeat had stored.
 */

/** Where an object's metadata names its owner; none: it is kept. */
export const OWNER = 'owner';
export const LOOK_AGAIN_MS = 1_000;

// An object that comes and goes while others put it: more than six rounds, 3 s in all, it won't.
const ROUNDS = 7;
const WAIT_MS = 50;

/** What of a store it takes to put one object once. */
export interface OnceStore {
  /** Resolves with undefined if the key is taken. */
  putIfAbsent(): Promise<{ etag: string } | undefined>;
  /** Puts the same bytes in place of those that were found, without an owner; undefined: they are there no more. */
  claim(found: ObjectHead): Promise<{ etag: string } | undefined>;
  /** What is there, if it is the same bytes. */
  find(): Promise<ObjectHead | undefined>;
  /** @throws ObjectExistsError if there are other bytes */
  findSame(): Promise<ObjectHead | undefined>;
}

/** As `ObjectStore.put` with an owner, for bytes that can be put more than once. */
export async function putOnce(
  store: OnceStore,
  owner: Owner,
  signal: AbortSignal,
): Promise<{ etag: string; existing?: ObjectHead }> {
  for (let round = 0; round < ROUNDS; round += 1) {
    if (round > 0) await pause(round, signal);
    const stored = await store.putIfAbsent();
    if (stored) return stored;
    const found = await store.findSame();
    if (!found) continue;
    // Ours: the answer was lost, and the SDK put it again.
    if (isOwn(found, owner)) return { etag: found.etag };
    const kept = isKept(found) ? found : await store.claim(found);
    if (!kept) continue;
    const { etag } = kept;
    await sleep(LOOK_AGAIN_MS, undefined, { signal });
    const existing = await store.find();
    if (existing?.etag === etag && isKept(existing)) return { etag, existing };
  }
  throw new StoreUnavailableError('the object came and went while it was to be put');
}

export function withoutOwner(metadata: ObjectHead['metadata']): ObjectHead['metadata'] {
  return Object.fromEntries(Object.entries(metadata).filter(([name]) => name !== OWNER));
}

/** Waits longer from round to round, with jitter. */
export function pause(round: number, signal: AbortSignal): Promise<void> {
  return sleep(WAIT_MS * 2 ** (round - 1) * (0.5 + Math.random()), undefined, { signal });
}

export function isOwn({ metadata }: ObjectHead, owner: Owner): boolean {
  return metadata[OWNER] === owner.nonce;
}

function isKept({ metadata }: ObjectHead): boolean {
  return metadata[OWNER] === undefined;
}

/** Compares while it reads, so that there are never two copies in memory. @throws ObjectExistsError */
export async function expectSame(expected: Buffer, { head, body }: Stored): Promise<ObjectHead> {
  let at = 0;
  let isSame = head.bytes === expected.length;
  if (isSame) {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      isSame = chunk.equals(expected.subarray(at, at + chunk.length));
      at += chunk.length;
      if (!isSame) break;
    }
    isSame &&= at === expected.length;
  }
  body.destroy();
  if (!isSame) throw new ObjectExistsError(head.key);
  return head;
}

interface Stored {
  readonly head: ObjectHead;
  readonly body: Readable;
}

/** Remembers the S3 parts of an object by their SHA-256, to compare it with one that is there when its bytes are gone. */
export class PartDigests {
  readonly #parts = new Map<number, { bytes: number; digest: Buffer }>();

  add(number: number, part: Buffer): void {
    this.#parts.set(number, { bytes: part.length, digest: createHash('sha256').update(part).digest() });
  }

  /** @throws ObjectExistsError */
  async expectSame({ head, body }: Stored): Promise<ObjectHead> {
    const isSame = await this.#matches(head, body);
    body.destroy();
    if (!isSame) throw new ObjectExistsError(head.key);
    return head;
  }

  async #matches(head: ObjectHead, body: Readable): Promise<boolean> {
    const parts = [...this.#parts].sort(([a], [b]) => a - b).map(([, part]) => part);
    if (head.bytes !== parts.reduce((sum, { bytes }) => sum + bytes, 0)) return false;
    let part = parts.shift();
    let hash = createHash('sha256');
    let left = part?.bytes ?? 0;
    for await (let chunk of body as AsyncIterable<Buffer>) {
      while (part && chunk.length > 0) {
        const own = chunk.subarray(0, left);
        hash.update(own);
        left -= own.length;
        chunk = chunk.subarray(own.length);
        if (left > 0) continue;
        if (!hash.digest().equals(part.digest)) return false;
        part = parts.shift();
        hash = createHash('sha256');
        left = part?.bytes ?? 0;
      }
    }
    return part === undefined;
  }
}
