import { type IncomingMessage, type ServerResponse } from 'node:http';
import { type Problem, problemBody, problemHeaders } from './problem.js';

// A client that is still sending its body has not begun to read. Closing the connection under it makes
// the kernel send a reset, and the client sees a network error in place of the answer. So the answer is
// sent, what still comes is thrown away for a while, and only then is the connection closed, or kept
// if the body came to its end: nginx calls it lingering close, with 30 s; we need not be that patient.
const LINGER_BYTES = 64 * 1024 * 1024;
const LINGER_MS = 5_000;

/** Sends a problem and, where the request's body is still on its way, waits for it within bounds. */
export function answerProblem(request: IncomingMessage, response: ServerResponse, problem: Problem): void {
  if (response.headersSent || response.destroyed) {
    // Half an answer is out: only a broken connection tells the client that it is not whole.
    response.destroy();
    return;
  }
  const body = problemBody(problem, String(response.getHeader('X-Request-Id') ?? ''));
  const json = Buffer.from(JSON.stringify(body));
  // Set for an image before it turned out that there is none to send; a 416 tells its length.
  const stale = ['Content-Disposition', 'ETag', 'Last-Modified', 'Accept-Ranges'];
  for (const name of body.status === 416 ? stale : [...stale, 'Content-Range']) response.removeHeader(name);
  response.setHeaders(new Map(Object.entries(problemHeaders(problem.code))));
  response.writeHead(body.status, {
    'Content-Type': 'application/problem+json; charset=utf-8',
    'Content-Length': json.length,
    'Cache-Control': 'no-store',
    // A client that waits for "100 Continue" never sends this body, and nobody could tell whether
    // what comes next is the body or another request.
    ...(awaitsContinue(request) && { Connection: 'close' }),
  });
  if (request.method === 'HEAD' || bodyIsRead(request) || awaitsContinue(request)) {
    response.end(request.method === 'HEAD' ? undefined : json);
    return;
  }
  response.write(json);
  linger(request, response);
}

/** Whether the request asked for "100 Continue" and has not been told so. */
function awaitsContinue(request: IncomingMessage): boolean {
  if (request.httpVersion === '1.0') return false; // RFC 9110, section 10.1.1
  return request.headers.expect?.toLowerCase() === '100-continue' && !continued.has(request);
}

const continued = new WeakSet<IncomingMessage>();

/** Tells a client that asked with `Expect: 100-continue` to send its body. */
export function writeContinue(request: IncomingMessage, response: ServerResponse): void {
  if (!awaitsContinue(request)) return;
  response.writeContinue();
  continued.add(request);
}

function bodyIsRead(request: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  return request.complete || (encoding === undefined && (length === undefined || length === '0'));
}

function linger(request: IncomingMessage, response: ServerResponse): void {
  let bytes = 0;
  const deadline = setTimeout(close, LINGER_MS);
  function count(chunk: Buffer) {
    bytes += chunk.length;
    if (bytes > LINGER_BYTES) close();
  }
  function stop() {
    clearTimeout(deadline);
    request.off('data', count);
  }
  function close() {
    stop();
    response.end();
    request.socket.destroySoon();
  }
  request.on('data', count);
  request.once('end', () => {
    stop();
    response.end();
  });
  request.once('close', stop);
  request.resume();
}
