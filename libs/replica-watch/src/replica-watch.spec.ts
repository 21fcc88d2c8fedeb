import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReplicaWatch } from './replica-watch.js';

/** Answers as it is told to; real, over HTTP. */
class Replica {
  answer: RequestListener = (_, response) => response.end();

  private constructor(readonly server: Server) {}

  static async start(): Promise<Replica> {
    const replica = new Replica(createServer((...exchange) => replica.answer(...exchange)));
    await once(replica.server.listen(0, '127.0.0.1'), 'listening');
    return replica;
  }

  get entry(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  says(status: number, body: unknown): void {
    this.answer = (_, response) => response.writeHead(status).end(JSON.stringify(body));
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

describe('a watch over replicas', () => {
  let ant: Replica;
  let bee: Replica;
  let lists: string[][];
  let watch: ReplicaWatch;
  const latest = () => lists.at(-1);
  const until = async (expected: readonly string[]) => {
    while (JSON.stringify(latest()) !== JSON.stringify(expected)) await sleep(10);
  };

  beforeEach(async () => {
    [ant, bee] = await Promise.all([Replica.start(), Replica.start()]);
    lists = [];
    watch = new ReplicaWatch({ onList: (serving) => lists.push([...serving]) });
    await watch.know([ant.entry, bee.entry]);
    watch.start();
  });
  afterEach(() => {
    watch.stop();
    ant.stop();
    bee.stop();
  });

  it('says who serves at once, and again only when that changes', async () => {
    expect(lists).toEqual([[ant.entry, bee.entry]]);
    await sleep(1_200);
    expect(lists).toHaveLength(1);
  });

  it('takes out one that is not ready, and one that nobody listens for, after one ask', async () => {
    bee.says(503, { details: { store: { status: 'down' } } });
    await until([ant.entry]);
    bee.says(200, {});
    await until([ant.entry, bee.entry]);
    ant.stop();
    await until([bee.entry]);
  });

  it('prefers one that is not ready but stays to one that drains', async () => {
    ant.says(503, { details: { replica: { status: 'down', message: 'draining' } } });
    await until([bee.entry]);
    bee.says(503, 'what a proxy may say');
    await until([bee.entry]);
    bee.stop();
    await until([ant.entry]);
  });

  it('takes out one that accepts and never answers, within 3 s, and has it back with its first answer', async () => {
    const since = performance.now();
    bee.answer = () => undefined;
    await until([ant.entry]);
    const after = performance.now() - since;
    // Three asks are left unanswered first.
    expect(after).toBeGreaterThan(1_000);
    expect(after).toBeLessThan(3_000);
    bee.says(200, {});
    await until([ant.entry, bee.entry]);
  });

  it('does not take one for hung that answers late, but always', async () => {
    bee.answer = (_, response) => void setTimeout(() => response.end(), 900);
    await sleep(3_500);
    expect(lists).toEqual([[ant.entry, bee.entry]]);
  });

  it('drops one that is no longer known at once, and takes a new one when it has answered', async () => {
    await watch.know([bee.entry]);
    expect(latest()).toEqual([bee.entry]);
    const cow = await Replica.start();
    await watch.know([bee.entry, cow.entry]);
    expect(latest()).toEqual([bee.entry, cow.entry]);
    cow.stop();
  });

  it('begins with the PROXY header where replicas expect one', async () => {
    let first = '';
    const raw = createServer().on('clientError', (error: Error & { rawPacket?: Buffer }, socket) => {
      first = String(error.rawPacket);
      socket.destroy();
    });
    await once(raw.listen(0, '127.0.0.1'), 'listening');
    const proxied = new ReplicaWatch({ onList: () => undefined }, true);
    await proxied.know([`127.0.0.1:${(raw.address() as AddressInfo).port}`]);
    expect(first).toMatch(/^PROXY UNKNOWN\r\n(GET \/health\/ready |$)/);
    raw.close();
  });
});
