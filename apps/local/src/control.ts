import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { realpathSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { makeFolder, parseCount } from './options.js';

/** macOS has a byte less for its end than Linux, and both much less than for other paths. */
const MAX_PATH_BYTES = 103;

interface Answer {
  readonly done?: string;
  readonly error?: string;
}

/** Where `npm run scale` finds the `npm start` that has a data folder: a socket that only its user may open. */
export class Control {
  private constructor(private readonly server: Server) {}

  /** Rejects when another one has the folder. `scale` resolves with what was done. */
  static async open(folder: string, scale: (count: number) => Promise<string>): Promise<Control> {
    makeFolder(folder);
    const path = socketPath(folder);
    const other = await meet(path);
    if (other !== undefined) {
      other.destroy();
      throw new Error(`Another npm start has ${folder}; choose another folder with --data.`);
    }
    // That of one that was killed.
    rmSync(path, { force: true });
    const server = createServer((socket) => void answer(socket, scale));
    const mask = process.umask(0o177);
    server.listen(path);
    process.umask(mask);
    await once(server, 'listening');
    return new Control(server);
  }

  close(): void {
    this.server.close();
  }
}

/** Has the `npm start` of this folder scaled; resolves with what it did, rejects with why it did not. */
export async function askToScale(folder: string, count: number): Promise<string> {
  const socket = await meet(socketPath(folder));
  if (socket === undefined) {
    throw new Error(`Nothing is running with ${folder}. Start it with: npm start -- --replicas ${count}`);
  }
  socket.write(JSON.stringify(count));
  const { done, error } = JSON.parse((await text(socket)) || '{}') as Answer;
  if (done === undefined) throw new Error(error ?? 'It ended before it was done.');
  return done;
}

async function answer(socket: Socket, scale: (count: number) => Promise<string>): Promise<void> {
  let said: Answer;
  try {
    // It is too short to come in pieces.
    const [request] = (await once(socket.setEncoding('utf8'), 'data')) as [string];
    said = { done: await scale(parseCount(request)) };
  } catch (error) {
    said = { error: error instanceof Error ? error.message : String(error) };
  }
  // Who has gone need not hear it.
  socket.on('error', () => undefined).end(JSON.stringify(said));
}

/** One name per folder, however it is written. It can't lie in the folder, whose path may be too long. */
function socketPath(folder: string): string {
  let real = folder;
  try {
    real = realpathSync(folder);
  } catch {
    // Then nothing runs there.
  }
  const name = createHash('sha256').update(real).digest('hex').slice(0, 16);
  const path = join(tmpdir(), `naru-${name}.sock`);
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
    throw new Error(
      `The path of temporary files, ${tmpdir()}, is too long for a socket; set TMPDIR to a shorter one.`,
    );
  }
  return path;
}

/** Resolves with a connection, or nothing if nobody listens. */
async function meet(path: string): Promise<Socket | undefined> {
  const socket = connect(path);
  return once(socket, 'connect').then(
    () => socket,
    () => undefined,
  );
}
