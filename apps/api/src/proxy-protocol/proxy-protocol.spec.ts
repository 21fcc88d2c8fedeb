import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { jest } from '@jest/globals';
import { Logger } from '@nestjs/common';
import { expectProxyHeaders } from './proxy-protocol.js';

const HEADER = 'PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n';
const KEPT_REQUEST = 'GET / HTTP/1.1\r\nHost: naru.test\r\n\r\n';
const REQUEST = 'GET / HTTP/1.1\r\nHost: naru.test\r\nConnection: close\r\n\r\n';

describe('expectProxyHeaders', () => {
  const warn = jest.spyOn(Logger.prototype, 'warn').mockReturnValue(undefined);
  const handedOn = jest.fn();
  let server: Server;

  beforeEach(() => jest.clearAllMocks());
  afterEach(() => server.close());
  afterAll(() => warn.mockRestore());

  /** A server that answers with who it takes the client for; `peer` stands for the address that a connection is from. */
  async function serve({ peer }: { peer?: string } = {}) {
    server = createServer(({ socket }, response) => {
      response.end(`${socket.remoteFamily} ${socket.remoteAddress} ${socket.remotePort}`);
    });
    server.on('connection', handedOn);
    expectProxyHeaders(server);
    if (peer) {
      server.prependListener('connection', (socket: Socket) => {
        Object.defineProperty(socket, 'remoteAddress', { value: peer, configurable: true });
      });
    }
    await once(server.listen(0, '127.0.0.1'), 'listening');
  }

  /** All that comes back on a connection that sends so much, and leaves the closing to the server. */
  async function answerTo(...pieces: (Buffer | string)[]): Promise<string> {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1').setNoDelay();
    let answer = '';
    socket.setEncoding('latin1').on('data', (text: string) => (answer += text));
    socket.on('error', () => undefined);
    const closed = once(socket, 'close');
    for (const piece of pieces) {
      socket.write(piece);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await closed;
    return answer;
  }

  const refusal = (reason: string, remoteAddress: string) => [
    [{ msg: 'connection closed: no valid PROXY header', reason, remoteAddress }],
  ];

  it('gives the connection the address, the port and the family of the client', async () => {
    await serve({ peer: '192.0.2.1' });
    expect(await answerTo(HEADER + REQUEST)).toMatch(/IPv6 2001:db8::7 56324$/);
    const v2 = Buffer.from('0d0a0d0a000d0a515549540a2111000ccb007107c0000201dc0401bb', 'hex');
    expect(await answerTo(Buffer.concat([v2, Buffer.from(REQUEST)]))).toMatch(/IPv4 203\.0\.113\.7 56324$/);
  });

  it('hands a connection on once, and has no more to do with it', async () => {
    await serve({ peer: '192.0.2.1' });
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    client.write(HEADER + KEPT_REQUEST);
    expect(String(await once(client, 'data'))).toMatch(/^HTTP\/1\.1 200/);
    client.write(KEPT_REQUEST);
    expect(String(await once(client, 'data'))).toMatch(/^HTTP\/1\.1 200/);
    client.end();
    await once(client, 'close');
    expect(handedOn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls).toEqual([]);
  });

  it('leaves the connection its own address where the balancer speaks for itself', async () => {
    await serve({ peer: '192.0.2.1' });
    expect(await answerTo(`PROXY UNKNOWN\r\n${REQUEST}`)).toMatch(/IPv4 192\.0\.2\.1 \d+$/);
  });

  it('reads a header that comes byte by byte', async () => {
    await serve({ peer: '192.0.2.1' });
    expect(await answerTo(...HEADER.split(''), REQUEST)).toMatch(/IPv6 2001:db8::7 56324$/);
  });

  it.each(['127.0.0.1', '127.9.8.7', '::1', '::ffff:127.0.0.1'])(
    'takes a connection from %s without a header for plain HTTP',
    async (peer) => {
      await serve({ peer });
      expect(await answerTo(REQUEST)).toMatch(/^HTTP\/1\.1 200/);
      expect(warn.mock.calls).toEqual([]);
    },
  );

  it.each(['192.0.2.127', '::ffff:192.0.2.1', '2001:db8::1', '1127.0.0.1', '::11'])(
    'closes a connection from %s that has no header, without an answer',
    async (peer) => {
      await serve({ peer });
      expect(await answerTo(REQUEST)).toBe('');
      expect(warn.mock.calls).toEqual(refusal('absent', peer));
    },
  );

  it.each(['192.0.2.1', '127.0.0.1'])(
    'closes a connection from %s whose header is wrong, without an answer',
    async (peer) => {
      await serve({ peer });
      expect(await answerTo(`PROXY TCP4 nobody\r\n${REQUEST}`)).toBe('');
      expect(warn.mock.calls).toEqual(refusal('malformed', peer));
    },
  );

  describe('by a clock of its own', () => {
    beforeEach(() => jest.useFakeTimers({ doNotFake: ['nextTick', 'queueMicrotask', 'setImmediate'] }));
    afterEach(() => jest.useRealTimers());

    it.each([
      ['nothing', ''],
      ['a part of the header', 'PROXY TCP4 '],
    ])('closes a connection that sends %s for 5 s', async (_name, piece) => {
      await serve({ peer: '192.0.2.1' });
      const accepted = once(server, 'connection');
      const answer = answerTo(piece);
      await accepted;
      jest.advanceTimersByTime(4_999);
      expect(warn.mock.calls).toEqual([]);
      jest.advanceTimersByTime(1);
      expect(warn.mock.calls).toEqual(refusal('late', '192.0.2.1'));
      expect(await answer).toBe('');
    });

    it('forgets a connection that was closed before its header came', async () => {
      await serve({ peer: '192.0.2.1' });
      const accepted = once(server, 'connection') as Promise<[Socket]>;
      const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
      const [socket] = await accepted;
      client.end();
      await once(socket, 'close');
      jest.advanceTimersByTime(60_000);
      expect(warn.mock.calls).toEqual([]);
    });

    it('leaves a request its own time, once the header is there', async () => {
      await serve({ peer: '192.0.2.1' });
      const accepted = once(server, 'connection') as Promise<[Socket]>;
      const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
      const [socket] = await accepted;
      client.write(HEADER);
      while (socket.remoteAddress !== '2001:db8::7') await new Promise((resolve) => setImmediate(resolve));
      jest.advanceTimersByTime(60_000);
      client.write(REQUEST);
      expect(String(await once(client, 'data'))).toMatch(/^HTTP\/1\.1 200/);
    });
  });

  it('closes what a client has closed in the middle of a header, and says nothing of a look at the port', async () => {
    await serve({ peer: '192.0.2.1' });
    const { port } = server.address() as AddressInfo;
    await once(connect({ port, host: '127.0.0.1', allowHalfOpen: true }).end().resume(), 'close');
    expect(warn.mock.calls).toEqual([]);
    await once(connect({ port, host: '127.0.0.1', allowHalfOpen: true }).end('PROXY').resume(), 'close');
    expect(warn.mock.calls).toEqual(refusal('cut off', '192.0.2.1'));
  });

  it('outlives a connection that is reset in the middle of a header', async () => {
    await serve();
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    connect((server.address() as AddressInfo).port, '127.0.0.1').write('PROXY');
    const [socket] = await accepted;
    // What Node does when a connection is reset; not every network tells a reset from an end.
    socket.destroy(new Error('read ECONNRESET'));
    // Not by `once`, which listens for an 'error' as well, and so would outlive it by itself.
    await new Promise((resolve) => socket.on('close', resolve));
    expect(await answerTo(HEADER + REQUEST)).toMatch(/^HTTP\/1\.1 200/);
  });
});
