import { flag, oneOf, readEnv, text } from '#env';
import { type Entry, parseReplicas } from '#replica-watch';

export interface Config {
  readonly replicas: readonly Entry[];
  readonly file: string;
  readonly proxyProtocol: boolean;
  readonly logLevel: string;
}

/** @throws EnvError that names every wrong variable. */
export function readConfig(source: NodeJS.ProcessEnv = process.env): Config {
  const env = readEnv(
    {
      LB_REPLICAS: text('host:port, parted by commas').refine(isList, 'host:port, parted by commas'),
      LB_REPLICAS_FILE: text('an absolute path', /^\//),
      PROXY_PROTOCOL: flag().default(false),
      LOG_LEVEL: oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
    },
    source,
  );
  return {
    replicas: parseReplicas(env.LB_REPLICAS),
    file: env.LB_REPLICAS_FILE,
    proxyProtocol: env.PROXY_PROTOCOL,
    logLevel: env.LOG_LEVEL,
  };
}

function isList(list: string): boolean {
  try {
    return parseReplicas(list).length > 0;
  } catch {
    return false;
  }
}
