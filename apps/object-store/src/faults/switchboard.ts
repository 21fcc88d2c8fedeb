import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { S3Error } from '../s3-error.js';
import type { Faults } from './faults.js';

/** No bucket can have this name. */
const PATH = '/-/faults';

/**
 * Answers `PUT /-/faults` and `GET /-/faults`, both in JSON; returns false for any other request. It asks for no
 * signature, so it is there only in a store that was started to have faults.
 */
export async function flipFaults(
  faults: Faults,
  message: IncomingMessage,
  response: ServerResponse,
): Promise<boolean> {
  if (message.url !== PATH) return false;
  try {
    if (message.method === 'PUT') faults.set(parse(await text(message)));
    else if (message.method !== 'GET') throw new S3Error('MethodNotAllowed', `Use PUT or GET.`);
    send(response, 200, faults.settings);
  } catch (error) {
    if (!(error instanceof S3Error)) throw error;
    send(response, error.status, { error: error.message });
  }
  return true;
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    throw new S3Error('InvalidArgument', 'The body is not JSON.');
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}
