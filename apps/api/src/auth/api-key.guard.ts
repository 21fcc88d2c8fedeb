import { createHash, timingSafeEqual } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { type Request } from 'express';
import { Config } from '../config.js';
import { Problem } from '../problem/problem.js';

/** Lets a request through that carries a known API key, or any with AUTH=none. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  constructor(private readonly config: Config) {}

  canActivate(context: ExecutionContext): boolean {
    const { apiKeys } = this.config;
    if (apiKeys === undefined) return true;
    const key = readKey(context.switchToHttp().getRequest<Request>());
    const hash = createHash('sha256')
      .update(key ?? '')
      .digest();
    // Every key is compared, and hashes of one length, so that the time tells nothing.
    let known = false;
    for (const expected of apiKeys.values()) known = timingSafeEqual(hash, expected) || known;
    if (key === undefined || !known) {
      throw new Problem(
        'UNAUTHENTICATED',
        `${key === undefined ? 'The request carries no API key' : 'The API key is not known'}; send one as "Authorization: Bearer KEY" or "X-Api-Key: KEY".`,
      );
    }
    return true;
  }
}

/** An empty key is none: the hash of nothing, which an unset shell variable leaves in API_KEYS, opens no door. */
function readKey(request: Request): string | undefined {
  const bearer = /^Bearer +(\S+)$/i.exec(request.get('authorization') ?? '')?.[1];
  return (bearer ?? request.get('x-api-key')) || undefined;
}
