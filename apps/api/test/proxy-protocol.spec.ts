import {
  Bucket,
  environmentFor,
  MiB,
  multipart,
  photo,
  photoOf,
  postHead,
  RawConnection,
  Replica,
  until,
} from './harness.js';
import { type LogLine, ReplicaProcess } from './replica-process.js';

const V1 = Buffer.from('PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n');
// TCP from 2001:db8::7, and an empty TLV behind the addresses.
const V2 = Buffer.from(
  '0d0a0d0a000d0a515549540a21210027' +
    '20010db8000000000000000000000007' +
    '20010db8000000000000000000000001' +
    'dc0401bb040000',
  'hex',
);

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: naru.test\r\n\r\n`;

describe('A replica behind an L4 balancer', () => {
  let bucket: Bucket;
  let replica: ReplicaProcess;

  beforeAll(async () => {
    bucket = await Bucket.open();
    replica = await start({ PROXY_PROTOCOL: 'true' });
  });
  afterEach(() => bucket.empty());
  afterAll(async () => {
    await replica.stop();
    await bucket.close();
  });

  function start(environment: NodeJS.ProcessEnv): Promise<ReplicaProcess> {
    return ReplicaProcess.start({ ...environmentFor(bucket), LOG_LEVEL: 'info', ...environment });
  }

  async function send(port: number, bytes: Buffer | string, pattern: RegExp): Promise<string> {
    const connection = await RawConnection.open(port);
    connection.write(bytes);
    return connection.receive(pattern).finally(() => connection.destroy());
  }

  async function remoteAddressOf(url: string): Promise<unknown> {
    const line = () => replica.lines.find(({ req }) => (req as LogLine | undefined)?.['url'] === url);
    await until(() => line() !== undefined);
    return (line()!['req'] as LogLine)['remoteAddress'];
  }

  it.each([
    ['1', V1, '203.0.113.7'],
    ['2', V2, '2001:db8::7'],
  ])('logs the client that a header of version %s names', async (version, header, client) => {
    const url = `/nothing?version=${version}`;
    await send(replica.port, Buffer.concat([header, Buffer.from(get(url))]), /"NOT_FOUND"/);
    expect(await remoteAddressOf(url)).toBe(client);
  });

  it.each([
    ['a photograph', photo],
    ['a large image', () => photoOf(12 * MiB)],
  ])('takes %s that comes together with the header', async (_name, make) => {
    const image = await make();
    const body = multipart({ bytes: image });
    const head = postHead({ 'Content-Length': body.length });
    const answer = await send(replica.port, Buffer.concat([V1, Buffer.from(head), body]), /"uploadedAt"/);
    expect(answer).toMatch(/^HTTP\/1\.1 201/);
    const [, id] = /"id":"(\w+)"/.exec(answer)!;
    const read = await replica.http.get(`/images/${id}`).responseType('blob').expect(200);
    expect(image.equals(read.body)).toBe(true);
  });

  it('knows the client at every request of a connection, kept alive or pipelined', async () => {
    const connection = await RawConnection.open(replica.port);
    connection.write(Buffer.concat([V1, Buffer.from(get('/nothing?first') + get('/nothing?second'))]));
    await connection.receive(/("NOT_FOUND"[^]*){2}/);
    const body = multipart({ bytes: await photo() });
    connection.write(postHead({ 'Content-Length': body.length }).replace('/images', '/images?third'));
    connection.write(body);
    await connection.receive(/HTTP\/1\.1 201/);
    connection.destroy();
    for (const url of ['/nothing?first', '/nothing?second', '/images?third'])
      expect(await remoteAddressOf(url)).toBe('203.0.113.7');
  });

  it('speaks plain HTTP with this machine, whose probes come without a header', async () => {
    await replica.http.get('/nothing?plain').expect(404);
    expect(await remoteAddressOf('/nothing?plain')).toBe('127.0.0.1');
  });

  it('closes a connection whose header is malformed, without an answer and with a line in the log', async () => {
    const connection = await RawConnection.open(replica.port);
    connection.write(`PROXY TCP4 203.0.113.7\r\n${get('/nothing?malformed')}`);
    await connection.closed;
    expect(connection.text).toBe('');
    const lines = () => replica.lines.filter(({ context }) => context === 'ProxyProtocol');
    await until(() => lines().length > 0);
    expect(lines()).toEqual([
      expect.objectContaining({ level: 'warn', reason: 'malformed', remoteAddress: '127.0.0.1' }),
    ]);
    expect(replica.stdout).not.toContain('nothing?malformed');
  });

  it('believes no header unless it is told to', async () => {
    const plain = await Replica.start(bucket);
    try {
      const bytes = Buffer.concat([V1, Buffer.from(get('/health/live'))]);
      expect(await send(plain.port, bytes, /\}$/)).toMatch(/^HTTP\/1\.1 400 [^]*"INVALID_ARGUMENT"/);
    } finally {
      await plain.close();
    }
  });

  describe('that is told to stop', () => {
    /** Tells a replica to stop that has a connection for each of `beginnings`, on which no more has been sent. */
    async function stop(environment: NodeJS.ProcessEnv, ...beginnings: (Buffer | string)[]) {
      // Less than the time a header may take, which would end the connection as well.
      const program = await start({ SHUTDOWN_TIMEOUT_MS: '4000', ...environment });
      const connections = await Promise.all(beginnings.map(() => RawConnection.open(program.port)));
      connections.forEach((connection, index) => connection.write(beginnings[index]!));
      // Connections are taken in their order, so these have been taken when a later one is served.
      await program.http.get('/health/live').expect(200);
      program.signal('SIGTERM');
      return { program, connections };
    }

    it.each([
      ['true', ['', V1]],
      ['false', ['']],
    ])(
      'does not wait for connections that have not said a word (PROXY_PROTOCOL=%s)',
      async (PROXY_PROTOCOL, beginnings) => {
        const { program, connections } = await stop({ PROXY_PROTOCOL }, ...beginnings);
        // Left to Node, they would be kept until SHUTDOWN_TIMEOUT_MS, and the exit code be 1.
        expect(await program.exited).toEqual([0, null]);
        await Promise.all(connections.map(({ closed }) => closed));
        expect(connections.map(({ text }) => text).join('')).toBe('');
      },
    );

    it('does not wait for them when the grace period is over before', async () => {
      const { program } = await stop({ PROXY_PROTOCOL: 'true', SHUTDOWN_TIMEOUT_MS: '100' }, '');
      expect(await program.exited).toEqual([1, null]);
      expect(program.stdout).not.toContain('"reason":"late"');
    });

    it('waits for a client that is silent in the middle of an upload', async () => {
      const body = multipart({ bytes: await photo() });
      const head = Buffer.from(postHead({ 'Content-Length': body.length }));
      const beginning = Buffer.concat([V1, head, body.subarray(0, 1000)]);
      const { program, connections } = await stop({ PROXY_PROTOCOL: 'true' }, beginning);
      await until(() => program.stdout.includes('listener closed'));
      await new Promise((resolve) => setTimeout(resolve, 1500));
      connections[0]!.write(body.subarray(1000));
      expect(await connections[0]!.receive(/"uploadedAt"/)).toMatch(/^HTTP\/1\.1 201/);
      expect(await program.exited).toEqual([0, null]);
    });

    it('still serves a first request that comes slowly', async () => {
      const { program, connections } = await stop({ PROXY_PROTOCOL: 'true' }, V1.subarray(0, 10));
      const [connection] = connections as [RawConnection];
      await until(() => program.stdout.includes('listener closed'));
      const rest = Buffer.concat([V1.subarray(10), Buffer.from(get('/health/live').slice(0, -2))]);
      for (let at = 0; at < rest.length; at += 10) {
        connection.write(rest.subarray(at, at + 10));
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
      connection.write('\r\n');
      expect(await connection.receive(/"status":"ok"/)).toMatch(/^HTTP\/1\.1 200/);
      expect(await program.exited).toEqual([0, null]);
    });
  });
});
