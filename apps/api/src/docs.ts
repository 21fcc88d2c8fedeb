import { type NestExpressApplication } from '@nestjs/platform-express';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { Config } from './config.js';

const AUTH = 'Needed where the service runs with AUTH=api-key';

/** OpenAPI 3.1 at /openapi.json, Swagger UI at /docs. */
export function serveDocs(app: NestExpressApplication): void {
  const builder = new DocumentBuilder()
    .setOpenAPIVersion('3.1.0')
    .setTitle('Naru')
    .setDescription(
      'Image uploads that scale out. Every error is RFC 9457 application/problem+json. Every answer names its ' +
        'request in X-Request-Id, and the replica that served it in X-Served-By.',
    )
    .setVersion('0.1.0')
    .addBearerAuth({ type: 'http', scheme: 'bearer', bearerFormat: 'API key', description: AUTH })
    .addApiKey({ type: 'apiKey', in: 'header', name: 'X-Api-Key', description: AUTH }, 'apiKey');
  const { publicUrl } = app.get(Config);
  if (publicUrl) builder.addServer(publicUrl);
  SwaggerModule.setup('docs', app, () => SwaggerModule.createDocument(app, builder.build()), {
    jsonDocumentUrl: 'openapi.json',
    yamlDocumentUrl: 'openapi.yaml',
  });
}
