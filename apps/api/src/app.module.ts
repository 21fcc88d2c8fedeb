import { type DynamicModule, Logger, Module } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import { ObjectStore, S3ObjectStore } from '#object-store';
import { Config } from './config.js';
import { Drain } from './drain/drain.js';
import { HealthController } from './health/health.controller.js';
import { StoreWatch } from './health/store-watch.js';
import { Images } from './images/images.js';
import { ImagesController } from './images/images.controller.js';
import { MeteredObjectStore } from './metrics/metered-object-store.js';
import { Metrics } from './metrics/metrics.js';
import { MetricsController } from './metrics/metrics.controller.js';
import { NotAllowedController } from './not-allowed.controller.js';
import { ProblemFilter } from './problem/problem.filter.js';
import { ImageReceiver } from './upload/image-receiver.js';
import { UploadMemory } from './upload/upload-memory.js';

/** The composition root: what a replica is made of. */
@Module({})
export class AppModule {
  static with(config: Config): DynamicModule {
    return {
      module: AppModule,
      imports: [TerminusModule.forRoot({ logger: false })],
      controllers: [ImagesController, HealthController, MetricsController, NotAllowedController],
      providers: [
        { provide: Config, useValue: config },
        {
          provide: StoreWatch,
          useFactory: (metrics: Metrics) => {
            const logger = new Logger('ObjectStore');
            const store = new S3ObjectStore(config.s3, (message) => {
              logger.warn(message);
            });
            return new StoreWatch(new MeteredObjectStore(store, metrics));
          },
          inject: [Metrics],
        },
        { provide: ObjectStore, useExisting: StoreWatch },
        ProblemFilter,
        { provide: APP_FILTER, useExisting: ProblemFilter },
        Drain,
        ImageReceiver,
        Images,
        Metrics,
        UploadMemory,
      ],
    };
  }
}
