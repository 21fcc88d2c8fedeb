import type { ServerResponse } from 'node:http';
import { toXml, type XmlValue } from './xml.js';

export function sendEmpty(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(
    status,
    status === 204 || status === 304 ? headers : { 'content-length': '0', ...headers },
  );
  response.end();
}

export function sendXml(
  response: ServerResponse,
  root: string,
  content: XmlValue,
  { status = 200, headers = {} }: { status?: number; headers?: Readonly<Record<string, string>> } = {},
): void {
  const body = toXml(root, content);
  response.writeHead(status, {
    'content-type': 'application/xml',
    'content-length': String(Buffer.byteLength(body)),
    ...headers,
  });
  response.end(body);
}
