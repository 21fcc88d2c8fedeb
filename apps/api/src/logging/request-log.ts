import { randomUUID } from 'node:crypto';
import { type IncomingMessage, type ServerResponse } from 'node:http';
import { type Response } from 'express';
import { type Logger } from 'pino';
import { pinoHttp } from 'pino-http';
import { describeError } from './logger.js';
import { requestContext } from './request-context.js';

const SANE_ID = /^[\w.-]{1,128}$/;
const PROBES = /^\/(health|metrics)/;

/**
 * Express middleware that gives a request its id (the caller's when it is sane), names the replica that
 * serves it, and writes one line when it is over. Headers, which may hold keys, are not logged.
 */
export function logRequests(logger: Logger, replicaId: string) {
  const log = pinoHttp({
    logger,
    genReqId: () => requestContext.getStore()?.requestId ?? '',
    quietReqLogger: true,
    // Probes come every second or two; they are there at the level debug.
    customLogLevel: (request, response, error) => {
      // A probe that is told no is no error: why it is, is logged once, where it is found out.
      if (PROBES.test(request.url ?? '') && !error) return 'debug';
      if (error || response.err || response.statusCode >= 500) return 'error';
      return response.statusCode >= 400 ? 'warn' : 'info';
    },
    customSuccessMessage: tell,
    customErrorMessage: tell,
    customProps: (_request, response) => ({ code: (response as Response).locals['code'] as unknown }),
    customAttributeKeys: { responseTime: 'durationMs', reqId: 'requestId' },
    // Left on, they would hand ours what pino's own have made of an error: all it holds.
    wrapSerializers: false,
    serializers: {
      err: describeError,
      req: ({ method, url, socket, headers }: IncomingMessage) => ({
        method,
        url,
        remoteAddress: socket.remoteAddress,
        // As the balancer says; nobody has to believe it.
        forwardedFor: headers['x-forwarded-for'],
        bytes: headers['content-length'],
        userAgent: headers['user-agent'],
      }),
      res: ({ headersSent, statusCode }: ServerResponse) => ({ statusCode: headersSent ? statusCode : null }),
    },
  });
  return (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
    const requestId = requestIdOf(request);
    response.setHeader('X-Request-Id', requestId);
    response.setHeader('X-Served-By', replicaId);
    requestContext.run({ requestId }, () => {
      log(request, response);
      next();
    });
  };
}

/** To a client that left, the status was never told. */
function tell({ method = '' }: IncomingMessage, response: ServerResponse): string {
  return `${method} ${response.writableFinished ? response.statusCode : 'aborted'}`;
}

function requestIdOf(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && SANE_ID.test(given) ? given : randomUUID();
}
