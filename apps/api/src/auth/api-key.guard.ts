import { createHash, timingSafeEqual } from 'node:crypto';
import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { type Request, type Response } from 'express';
import { Config } from '../config.js';
import { Problem } from '../problem/problem.js';

/** Lets a request through that carries a known API key, or any with AUTH=none. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  constructor(private readonly config: Config) {}

  canActivate(context: ExecutionContext): boolean {
    const { apiKeys } = this.config;
    if (apiKeys === undefined) return true;
    const http = context.switchToHttp();
    const key = readKey(http.getRequest<Request>());
    const hash = createHash('sha256')
      .update(key ?? '')
      .digest();
    // Every key is compared, and hashes of one length, so that the time tells nothing.
    let caller: string | undefined;
    for (const [name, expected] of apiKeys) caller = timingSafeEqual(hash, expected) ? name : caller;
    if (key === undefined || caller === undefined) {
      throw new Problem(
        'UNAUTHENTICATED',
        `${key === undefined ? 'The request carries no API key' : 'The API key is not known'}; send one as "Authorization: Bearer KEY" or "X-Api-Key: KEY".`,
      );
    }
    setCaller(http.getResponse<Response>(), caller);
    return true;
  }
}

function setCaller(response: Response, name: string): void {
  response.locals['caller'] = name;
}

/** The name of the API key that a request came with; undefined where none is needed. */
export function callerOf(response: Response): string | undefined {
  return response.locals['caller'] as string | undefined;
}

/** An empty key is none: the hash of nothing, which an unset shell variable leaves in API_KEYS, opens no door. */
function readKey(request: Request): string | undefined {
  const bearer = /^Bearer +(\S+)$/i.exec(request.get('authorization') ?? '')?.[1];
  return (bearer ?? request.get('x-api-key')) || undefined;
}
