import { type LoggerService } from '@nestjs/common';
import { type Logger, type LoggerOptions, pino } from 'pino';
import { type Config } from '../config.js';
import { Problem } from '../problem/problem.js';
import { requestContext } from './request-context.js';

// Nest tells of every route and module it sets up.
const STARTUP_CONTEXTS = new Set<unknown>(['InstanceLoader', 'RoutesResolver', 'RouterExplorer']);

/** JSON lines on stdout. */
export function createLogger(
  { logLevel: level, replicaId }: Config,
  options: Pick<LoggerOptions, 'mixin'> = {},
): Logger {
  return pino({
    ...options,
    level,
    base: { replica: replicaId },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: describeError },
  });
}

/**
 * An error without its own properties: those of the AWS SDK hold requests and answers, headers and all,
 * and so the signature of a request. What remains is enough to find the cause.
 */
export function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, $metadata } = error as {
    code?: unknown;
    $metadata?: { httpStatusCode?: number; requestId?: string };
  };
  return {
    type: error.name,
    message: error.message,
    ...(code !== undefined && { code }),
    ...($metadata && { storeStatus: $metadata.httpStatusCode, storeRequestId: $metadata.requestId }),
    // Where a problem was made tells nothing; what caused it does.
    ...(!(error instanceof Problem) && { stack: error.stack }),
    ...(error.cause !== undefined && { cause: describeError(error.cause) }),
  };
}

/** Nest's own lines, and those of its `Logger`, through pino; what belongs to a request carries its id. */
export class NestLogger implements LoggerService {
  readonly #pino: Logger;

  constructor(config: Config) {
    this.#pino = createLogger(config, { mixin: () => requestContext.getStore() ?? {} });
  }

  log = (message: unknown, ...rest: unknown[]) => this.#write('info', message, rest);
  error = (message: unknown, ...rest: unknown[]) => this.#write('error', message, rest);
  warn = (message: unknown, ...rest: unknown[]) => this.#write('warn', message, rest);
  debug = (message: unknown, ...rest: unknown[]) => this.#write('debug', message, rest);
  verbose = (message: unknown, ...rest: unknown[]) => this.#write('trace', message, rest);
  fatal = (message: unknown, ...rest: unknown[]) => this.#write('fatal', message, rest);

  /** Nest passes the context last and, with an error, its stack before it. */
  #write(
    level: 'info' | 'error' | 'warn' | 'debug' | 'trace' | 'fatal',
    message: unknown,
    rest: unknown[],
  ): void {
    const context = rest.at(-1);
    if (level === 'info' && STARTUP_CONTEXTS.has(context)) level = 'debug';
    const stack = rest.length > 1 ? rest[0] : undefined;
    const fields = { context, ...(stack !== undefined && { stack }) };
    if (message instanceof Error) this.#pino[level]({ ...fields, err: message });
    else if (typeof message === 'object') this.#pino[level]({ ...fields, ...message });
    else this.#pino[level](fields, message as string);
  }
}
