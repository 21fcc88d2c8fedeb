import { randomUUID } from 'node:crypto';
import { type Server, type ServerResponse } from 'node:http';
import { type Socket } from 'node:net';
import { Problem, problemBody } from './problem.js';

/**
 * Answers what isn't HTTP, or comes too slowly, and so never becomes a request; Node's own answer to it
 * has no body.
 */
export function answerClientErrors(server: Server, replicaId: string): void {
  const latest = new WeakMap<Socket, ServerResponse>();
  server.prependListener('request', (request, response) => latest.set(request.socket, response));
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    const response = latest.get(socket);
    const isBusy = response !== undefined && !response.writableFinished;
    // Within an answer that has begun, another one would pass for a part of it.
    if (!socket.writable || error.code === 'ECONNRESET' || (isBusy && response.headersSent)) {
      socket.destroy();
      return;
    }
    const problem =
      error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new Problem('UPLOAD_TIMEOUT', 'The request did not arrive in time.')
        : isBusy && error.code === 'HPE_INVALID_EOF_STATE'
          ? new Problem(
              'MALFORMED_MULTIPART',
              'The connection was closed in the middle of the body; send it whole.',
            )
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
  });
}
