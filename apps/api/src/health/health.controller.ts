import {
  type ArgumentsHost,
  Catch,
  Controller,
  type ExceptionFilter,
  Get,
  Header,
  ServiceUnavailableException,
  UseFilters,
} from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiServiceUnavailableResponse, ApiTags } from '@nestjs/swagger';
import { HealthCheckService, type HealthCheckResult, HealthIndicatorService } from '@nestjs/terminus';
import { type Response } from 'express';
import { Drain } from '../drain/drain.js';
import { Health } from './health.js';
import { StoreWatch } from './store-watch.js';

/** An ill replica answers with terminus's own details, not with a problem: probes and people read those. */
@Catch(ServiceUnavailableException)
class HealthFilter implements ExceptionFilter {
  catch(error: ServiceUnavailableException, host: ArgumentsHost): void {
    host
      .switchToHttp()
      .getResponse<Response>()
      .status(503)
      .set({ 'Retry-After': '2', 'Cache-Control': 'no-store' })
      .json(error.getResponse());
  }
}

const ApiReadiness = () => (target: object, name: string | symbol, descriptor: PropertyDescriptor) => {
  ApiOkResponse({ description: 'Ready', type: Health })(target, name, descriptor);
  ApiServiceUnavailableResponse({
    description: 'Draining, or the object store is away',
    type: Health,
    headers: { 'Retry-After': { description: 'Seconds to wait', schema: { type: 'integer' } } },
  })(target, name, descriptor);
};

@ApiTags('operation')
@Controller('health')
@UseFilters(HealthFilter)
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly store: StoreWatch,
    private readonly drain: Drain,
  ) {}

  @Get()
  @Header('Cache-Control', 'no-store')
  @ApiOperation({ operationId: 'readHealth', summary: 'The same as /health/ready' })
  @ApiReadiness()
  all(): Promise<HealthCheckResult> {
    return this.ready();
  }

  /** Whether the process works at all. It never asks the store: restarting us would not mend that. */
  @Get('live')
  @Header('Cache-Control', 'no-store')
  @ApiOperation({ operationId: 'readLiveness', summary: 'Whether the process works' })
  @ApiOkResponse({ description: 'It does', type: Health })
  live(): Promise<HealthCheckResult> {
    return this.health.check([]);
  }

  /** Whether a balancer should send requests here. The store isn't asked now: `StoreWatch` knows. */
  @Get('ready')
  @Header('Cache-Control', 'no-store')
  @ApiOperation({ operationId: 'readReadiness', summary: 'Whether a balancer should send requests here' })
  @ApiReadiness()
  ready(): Promise<HealthCheckResult> {
    const replica = this.indicators.check('replica');
    const store = this.indicators.check('store');
    return this.health.check([
      () => (this.drain.isDraining ? replica.down('draining') : replica.up()),
      () => (this.store.isReady ? store.up() : store.down(this.store.trouble)),
    ]);
  }
}
