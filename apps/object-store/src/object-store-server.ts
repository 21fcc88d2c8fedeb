import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { RequestBody } from './body/request-body.js';
import { Fault, Faults } from './faults/faults.js';
import { flipFaults } from './faults/switchboard.js';
import { sendEmpty, sendXml } from './http/answer.js';
import { S3Request } from './http/s3-request.js';
import { route, run } from './operations/route.js';
import { S3Error } from './s3-error.js';
import { verifySignature, type Credentials } from './signature/signature.js';
import { DataDirectory } from './storage/data-directory.js';
import { Uploads } from './storage/uploads.js';
import { asVendor, type Vendor } from './vendor.js';

export interface ObjectStoreServerOptions {
  /** Made if it is not there. One store at a time may use it. */
  readonly dataDir: string;
  /** Default 127.0.0.1: this is for one machine. */
  readonly host?: string | undefined;
  /** Default 0: any free port. */
  readonly port?: number | undefined;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Default us-east-1. Requests have to be signed for it. */
  readonly region?: string | undefined;
  /** Lets whoever reaches the port break it, by `PUT /-/faults`; for tests. */
  readonly faults?: boolean | undefined;
  /** Default: as S3 is. */
  readonly vendor?: Vendor | undefined;
}

export interface ObjectStoreServer {
  /** The endpoint for a client, e.g. `http://127.0.0.1:9000`. */
  readonly url: string;
  readonly port: number;
  /** Undefined unless it was started to have some. */
  readonly faults: Faults | undefined;
  /** Ends every connection at once; resolves when what was unfinished is cleared away. */
  close(): Promise<void>;
}

/** Clients keep connections; one that is closed just as it is used again fails a request for nothing. */
const KEEP_ALIVE_MS = 10 * 60 * 1000;
/** For a whole request: a client that hangs in mid-body does not hold its file for ever. */
const REQUEST_MS = 10 * 60 * 1000;

/**
 * Serves the subset of S3's REST interface that Naru uses, path-style, from a local directory.
 * Rejects with the error of `listen`, such as EADDRINUSE, or of the directory.
 */
export async function startObjectStore(options: ObjectStoreServerOptions): Promise<ObjectStoreServer> {
  const { host = '127.0.0.1', port = 0 } = options;
  const faults = options.faults ? new Faults() : undefined;
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: REQUEST_MS });
  // Listen first: whoever finds the port taken must not clear away what the other store is writing.
  const opening = once(server.listen(port, host), 'listening').then(
    async () => new Store(options, await DataDirectory.open(options.dataDir), faults),
  );
  const running = new Set<Promise<unknown>>();
  const serve = (message: IncomingMessage, response: ServerResponse, awaits100: boolean) => {
    const exchange = opening
      .then((store) => store.serve(message, response, awaits100))
      // The store could not be opened.
      .catch(() => response.destroy())
      .finally(() => running.delete(exchange));
    running.add(exchange);
  };
  server.on('request', (message, response) => {
    serve(message, response, false);
  });
  server.on('checkContinue', (message, response) => {
    serve(message, response, true);
  });
  try {
    await opening;
  } catch (error) {
    server.close();
    server.closeAllConnections();
    throw error;
  }
  const address = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
    port: address.port,
    faults,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
      await Promise.all(running);
      await (await opening).directory.close();
    },
  };
}

class Store {
  private readonly credentials: Credentials;
  private readonly uploads: Uploads;
  private readonly vendor: Vendor | undefined;

  constructor(
    options: ObjectStoreServerOptions,
    readonly directory: DataDirectory,
    private readonly faults: Faults | undefined,
  ) {
    this.vendor = options.vendor;
    this.uploads = new Uploads(directory);
    this.credentials = {
      accessKeyId: options.accessKeyId,
      secretAccessKey: options.secretAccessKey,
      region: options.region ?? 'us-east-1',
    };
  }

  /** Never rejects. */
  async serve(message: IncomingMessage, response: ServerResponse, awaits100: boolean): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    // Refused without it, the connection is closed (by Node): the body may come all the same.
    const begin = () => {
      if (awaits100) response.writeContinue();
    };
    try {
      if (this.faults && (await flipFaults(this.faults, message, response))) return;
      response.setHeader('x-amz-request-id', randomBytes(8).toString('hex').toUpperCase());
      const request = new S3Request(message);
      const signature = await verifySignature(request, this.credentials);
      const operation = route(request);
      if (this.faults && !(await this.faults.pass(request, operation, begin, gone.signal))) return;
      asVendor(this.vendor, request, operation);
      await run(operation, {
        request,
        response,
        bucket: request.bucket ?? '',
        key: request.key ?? '',
        body: new RequestBody(request, signature, begin),
        directory: this.directory,
        uploads: this.uploads,
        region: this.credentials.region,
        signal: gone.signal,
      });
    } catch (error) {
      if (response.headersSent || message.errored || gone.signal.aborted) response.destroy();
      else sendError(message, response, error);
      // Else what is left of the body would stand before the next request of the connection.
      message.resume();
    }
  }
}

function sendError(message: IncomingMessage, response: ServerResponse, thrown: unknown): void {
  const error = thrown instanceof S3Error || thrown instanceof Fault ? thrown : new S3Error('InternalError');
  if (error !== thrown) console.error('object store:', thrown);
  if (message.method === 'HEAD') {
    sendEmpty(response, error.status, error.headers);
    return;
  }
  const requestId = String(response.getHeader('x-amz-request-id') ?? '');
  sendXml(
    response,
    'Error',
    { Code: error.code, Message: error.message, Resource: message.url?.split('?')[0], RequestId: requestId },
    error,
  );
}
