import { text } from 'node:stream/consumers';
import { BadInput } from '../problem.js';
import { type CpuUse, type Stack } from './stack.js';

const ANSWER_MS = 10_000;

/** A Naru that runs already, somewhere: it is measured as it is, and nothing of it is started, stopped or killed. */
export class UrlStack implements Stack {
  readonly kind = 'url';
  readonly cpusPerReplica = null;

  constructor(readonly url: string) {}

  /** Refuses, naming why, what is down, not Naru, not ready or closed to us. */
  async start(): Promise<void> {
    const key = process.env['API_KEY'];
    let answer: Response;
    try {
      answer = await fetch(`${this.url}/images?limit=1`, {
        headers: key ? { Authorization: `Bearer ${key}` } : {},
        redirect: 'manual',
        signal: AbortSignal.timeout(ANSWER_MS),
      });
    } catch (error) {
      const { cause } = error as { cause?: { code?: string; message?: string } };
      const why = cause?.code ?? cause?.message ?? `no answer in ${ANSWER_MS / 1000} s`;
      throw new BadInput(`Nothing answers at ${this.#shown} (${why}). Is it started?`);
    }
    const body = await text(answer.body ?? new ReadableStream());
    if (answer.status >= 300 && answer.status < 400) {
      throw new BadInput(
        `${this.#shown} answers with a redirection to ${answer.headers.get('location') ?? 'nowhere'}; name that address.`,
      );
    }
    if (!answer.headers.has('x-served-by')) {
      throw new BadInput(`What answers at ${this.#shown} is not Naru: it sends no X-Served-By.`);
    }
    if (answer.status === 401) {
      throw new BadInput(
        `${this.#shown} wants an API key: ${key ? 'that of API_KEY is unknown to it' : 'set API_KEY in the environment'}.`,
      );
    }
    if (answer.status !== 200) {
      throw new BadInput(
        `${this.#shown} is not ready: the list of images answers ${answer.status} ${body.slice(0, 200)}`,
      );
    }
  }

  limit(): Promise<void> {
    return Promise.resolve();
  }

  select(): Promise<void> {
    return Promise.resolve();
  }

  cpu(): Promise<CpuUse> {
    return Promise.resolve({ replicas: {}, balancer: null, store: null });
  }

  kill(): Promise<string> {
    return Promise.reject(
      new BadInput('Nothing is killed at an address; kill a replica yourself while fault.js runs.'),
    );
  }

  revive(): Promise<void> {
    return Promise.resolve();
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }

  /** Without the user and password that an address may hold. */
  get #shown(): string {
    return this.url.replace(/^(https?:\/\/)[^/]*@/, '$1');
  }
}
