import { type Server } from 'node:http';
import { type Socket, type SocketAddress } from 'node:net';
import { Logger } from '@nestjs/common';
import { readProxyHeader } from './proxy-header.js';

// The specification wants 3 s at least, so that a lost segment can be sent again.
const HEADER_TIMEOUT_MS = 5_000;
const LOOPBACK = /^(?:::1$|(?:::ffff:)?127\.)/;

type Listener = (this: Server, socket: Socket) => void;

/**
 * Lets a server sit behind an L4 balancer that speaks the PROXY protocol: each connection is taken before HTTP has
 * it, and handed on without its header, as if it were the client's own. Whoever can connect is believed, so only the
 * balancer may be able to. A connection that doesn't begin with a header is closed without an answer; those of this
 * machine are plain HTTP then, since its probes don't pass the balancer.
 */
export function expectProxyHeaders(server: Server): void {
  const logger = new Logger('ProxyProtocol');
  const listeners = server.listeners('connection') as Listener[];
  server.removeAllListeners('connection');

  server.on('connection', (socket: Socket) => {
    const { remoteAddress = '' } = socket;
    let received: Buffer = Buffer.alloc(0);

    const read = () => {
      for (let chunk = next(socket); chunk; chunk = next(socket)) received = Buffer.concat([received, chunk]);
      const header = readProxyHeader(received);
      if (header === 'incomplete') return;
      if (header === 'absent' && LOOPBACK.test(remoteAddress)) handOn(received);
      else if (typeof header === 'string') refuse(header);
      else handOn(received.subarray(header.bytes), header.client);
    };
    const handOn = (rest: Buffer, client?: SocketAddress) => {
      release();
      if (client) impersonate(socket, client);
      if (rest.length > 0) socket.unshift(rest);
      for (const listener of listeners) listener.call(server, socket);
    };
    const refuse = (reason: 'absent' | 'malformed' | 'cut off' | 'late') => {
      logger.warn({ msg: 'connection closed: no valid PROXY header', reason, remoteAddress });
      socket.destroy();
    };
    const leave = () => {
      // Balancers look whether a port is open by connecting to it and saying nothing.
      if (received.length > 0) refuse('cut off');
      else socket.destroy();
    };
    const release = () => {
      clearTimeout(timer);
      socket.off('readable', read).off('end', leave);
    };
    const timer = setTimeout(() => {
      refuse('late');
    }, HEADER_TIMEOUT_MS);
    socket.on('readable', read).on('end', leave).on('error', ignore).on('close', release);
  });
}

function next(socket: Socket): Buffer | null {
  return socket.read() as Buffer | null;
}

/** 'close' follows, which is enough; without a listener the process would end. */
function ignore(): void {}

/** Node has these as getters of all sockets. */
function impersonate(socket: Socket, { address, port, family }: SocketAddress): void {
  Object.defineProperties(socket, {
    remoteAddress: { value: address },
    remotePort: { value: port },
    remoteFamily: { value: family === 'ipv4' ? 'IPv4' : 'IPv6' },
  });
}
