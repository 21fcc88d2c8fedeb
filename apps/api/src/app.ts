import { NestFactory } from '@nestjs/core';
import { type NestExpressApplication } from '@nestjs/platform-express';
import { type NextFunction, type Request, type Response } from 'express';
import { AppModule } from './app.module.js';
import { type Config } from './config.js';
import { Drain } from './drain/drain.js';
import { createLogger, NestLogger } from './logging/logger.js';
import { logRequests } from './logging/request-log.js';
import { Metrics } from './metrics/metrics.js';
import { serveDocs } from './docs.js';
import { answerClientErrors } from './problem/client-error.js';
import { expectProxyHeaders } from './proxy-protocol/proxy-protocol.js';

// Above the 60 s for which nginx keeps an idle upstream connection: who closes first loses a request.
const KEEP_ALIVE_MS = 65_000;
// Uploads have a time limit of their own, which answers with a problem; Node's only has to be longer.
const REQUEST_TIMEOUT_MARGIN_MS = 30_000;

/** A replica, ready to listen. */
export async function createApp(config: Config): Promise<NestExpressApplication> {
  const app = await NestFactory.create<NestExpressApplication>(AppModule.with(config), {
    logger: new NestLogger(config),
    // No body but an upload's is read, and multer reads that.
    bodyParser: false,
    abortOnError: false,
  });
  app.disable('x-powered-by');
  app.disable('etag');
  app.use(logRequests(createLogger(config), config.replicaId));
  app.use(app.get(Drain).track);
  app.use(measureRequests(app.get(Metrics)));
  serveDocs(app);

  const server = app.getHttpServer();
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.requestTimeout = config.upload.timeoutMs + REQUEST_TIMEOUT_MARGIN_MS;
  // Left to Node, "100 Continue" goes out before anybody has looked at the request.
  server.on('checkContinue', (request, response) => server.emit('request', request, response));
  // An expectation that nobody knows may be ignored (RFC 9110, section 10.1.1).
  server.on('checkExpectation', (request, response) => server.emit('request', request, response));
  answerClientErrors(server, config.replicaId);
  if (config.proxyProtocol) expectProxyHeaders(server);
  app.get(Drain).watch(server);
  return app;
}

function measureRequests(metrics: Metrics) {
  return (request: Request, response: Response, next: NextFunction): void => {
    const stop = metrics.requestSeconds.startTimer({ method: request.method });
    metrics.requestsInFlight.inc();
    response.once('close', () => {
      metrics.requestsInFlight.dec();
      const route = (request.route as { path?: string } | undefined)?.path ?? 'none';
      // 499, as nginx has it: the client was gone before there was an answer.
      stop({ route, status: response.headersSent ? response.statusCode : 499 });
    });
    next();
  };
}
