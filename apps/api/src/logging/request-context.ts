import { AsyncLocalStorage } from 'node:async_hooks';

/** Carries a request's id to every log line that is written on its behalf. */
export const requestContext = new AsyncLocalStorage<{ readonly requestId: string }>();
