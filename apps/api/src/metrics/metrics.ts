import { Injectable } from '@nestjs/common';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { Config } from '../config.js';

/** What Prometheus is told; one registry for each application, so that tests can start several. */
@Injectable()
export class Metrics {
  readonly registry = new Registry();
  readonly #registers = [this.registry];

  readonly requestSeconds = new Histogram({
    name: 'naru_http_request_duration_seconds',
    help: 'Time from the head of a request to the end of its answer',
    labelNames: ['method', 'route', 'status'] as const,
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: this.#registers,
  });
  readonly requestsInFlight = new Gauge({
    name: 'naru_http_requests_in_flight',
    help: 'Requests that have not been answered yet',
    registers: this.#registers,
  });
  readonly uploads = new Counter({
    name: 'naru_uploads_total',
    help: 'Images by what became of them: stored, or the code of the problem',
    labelNames: ['outcome'] as const,
    registers: this.#registers,
  });
  readonly uploadBytes = new Counter({
    name: 'naru_upload_bytes_total',
    help: 'Bytes of images stored',
    registers: this.#registers,
  });
  readonly uploadSeconds = new Histogram({
    name: 'naru_upload_duration_seconds',
    help: 'Time from the first byte of an image to its place in the store',
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120],
    registers: this.#registers,
  });
  readonly uploadsInFlight = new Gauge({
    name: 'naru_uploads_in_flight',
    help: 'Images on their way to the store',
    registers: this.#registers,
  });
  readonly uploadMemoryBytes = new Gauge({
    name: 'naru_upload_memory_bytes',
    help: 'Memory granted to uploads, out of MAX_UPLOAD_MEMORY_BYTES',
    registers: this.#registers,
  });
  readonly uploadMemoryLimitBytes = new Gauge({
    name: 'naru_upload_memory_limit_bytes',
    help: 'MAX_UPLOAD_MEMORY_BYTES; an upload that does not fit under it waits',
    registers: this.#registers,
  });
  readonly replicaInfo = new Gauge({
    name: 'naru_replica_info',
    help: '1, with the id that this replica goes by in X-Served-By and in the log',
    labelNames: ['replica'] as const,
    registers: this.#registers,
  });
  readonly storeSeconds = new Histogram({
    name: 'naru_store_call_duration_seconds',
    help: 'Calls to the object store by operation and outcome (ok, not_found, exists, unavailable, aborted)',
    labelNames: ['operation', 'outcome'] as const,
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: this.#registers,
  });

  constructor(config: Config) {
    this.uploadMemoryLimitBytes.set(config.upload.maxMemoryBytes);
    this.replicaInfo.set({ replica: config.replicaId }, 1);
    // Process and Node.js figures, the lag of the event loop among them.
    collectDefaultMetrics({ register: this.registry });
  }
}
