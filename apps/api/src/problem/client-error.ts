import { randomUUID } from 'node:crypto';
import { type Socket } from 'node:net';
import { Problem, problemBody } from './problem.js';

/**
 * Answers what isn't HTTP, or comes too slowly, and so never becomes a request; Node's own answer to it
 * has no body.
 */
export function answerClientError(replicaId: string) {
  return (error: NodeJS.ErrnoException, socket: Socket): void => {
    if (!socket.writable || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const problem =
      error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new Problem('UPLOAD_TIMEOUT', 'The request did not arrive in time.')
        : new Problem(
            'INVALID_ARGUMENT',
            'The request is not well-formed HTTP/1.1, or its head is too large.',
          );
    const requestId = randomUUID();
    const body = problemBody(problem, requestId);
    const json = JSON.stringify(body);
    const head = [
      `HTTP/1.1 ${body.status} ${body.status === 408 ? 'Request Timeout' : 'Bad Request'}`,
      'Content-Type: application/problem+json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(json)}`,
      'Connection: close',
      `X-Request-Id: ${requestId}`,
      `X-Served-By: ${replicaId}`,
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${json}`);
  };
}
