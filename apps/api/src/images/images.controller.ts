import {
  Controller,
  Delete,
  Get,
  Head,
  HttpCode,
  Param,
  Post,
  Query,
  Req,
  Res,
  StreamableFile,
  UseGuards,
} from '@nestjs/common';
import {
  ApiBearerAuth,
  ApiBody,
  ApiConsumes,
  ApiCreatedResponse,
  ApiHeader,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiParam,
  ApiProduces,
  ApiQuery,
  ApiResponse,
  ApiSecurity,
  ApiTags,
} from '@nestjs/swagger';
import { type Request, type Response } from 'express';
import { ApiKeyGuard } from '../auth/api-key.guard.js';
import { ApiProblems } from '../problem/api-problems.js';
import { ImageReceiver } from '../upload/image-receiver.js';
import { CreatedImages, Image, ImagePage } from './image.js';
import { Images } from './images.js';

const ApiImageId = () => ApiParam({ name: 'id', schema: { type: 'string', pattern: '^[0-9a-f]{32}$' } });
const ApiKey = () => (target: object, name: string | symbol, descriptor: PropertyDescriptor) => {
  ApiBearerAuth()(target, name, descriptor);
  ApiSecurity('apiKey')(target, name, descriptor);
};

const ApiConditions = () => (target: object, name: string | symbol, descriptor: PropertyDescriptor) => {
  for (const header of ['If-None-Match', 'If-Modified-Since']) {
    ApiHeader({ name: header, required: false, schema: { type: 'string' } })(target, name, descriptor);
  }
};
const BYTES = { type: 'string', format: 'binary' } as const;
const IMAGE_HEADERS = Object.fromEntries(
  ['ETag', 'Last-Modified', 'Content-Length', 'Content-Disposition', 'Cache-Control', 'Accept-Ranges'].map(
    (name) => [name, { schema: { type: name === 'Content-Length' ? 'integer' : 'string' } as const }],
  ),
);

@ApiTags('images')
@Controller('images')
export class ImagesController {
  constructor(
    private readonly images: Images,
    private readonly receiver: ImageReceiver,
  ) {}

  @Post()
  @UseGuards(ApiKeyGuard)
  @ApiKey()
  @ApiOperation({ operationId: 'uploadImages', summary: 'Upload one or more images; all are kept, or none' })
  @ApiHeader({
    name: 'Idempotency-Key',
    required: false,
    description:
      'A name for this request, a UUID say. The same images again under the same key are answered as before and ' +
      'stored once; other images are refused',
    schema: { type: 'string', minLength: 1, maxLength: 255, pattern: '^[!-~]+$' },
  })
  @ApiConsumes('multipart/form-data')
  @ApiBody({
    required: true,
    schema: {
      type: 'object',
      required: ['images'],
      properties: {
        images: { type: 'array', minItems: 1, items: { type: 'string', format: 'binary' } },
      },
    },
  })
  @ApiCreatedResponse({
    description: 'Every image, in the order sent',
    type: CreatedImages,
    headers: {
      Location: { description: 'The URL of the image, when there is one', schema: { type: 'string' } },
    },
  })
  @ApiProblems(
    'MALFORMED_MULTIPART',
    'NO_IMAGE',
    'UNEXPECTED_FIELD',
    'TOO_MANY_IMAGES',
    'INVALID_ARGUMENT',
    'UNAUTHENTICATED',
    'UPLOAD_TIMEOUT',
    'IMAGE_TOO_LARGE',
    'UNSUPPORTED_IMAGE',
    'UNSUPPORTED_MEDIA_TYPE',
    'CORRUPT_IMAGE',
    'TOO_MANY_PIXELS',
    'IDEMPOTENCY_KEY_REUSED',
    'INTERNAL',
    'STORE_UNAVAILABLE',
    'DRAINING',
    'OVERLOADED',
  )
  async create(
    @Req() request: Request,
    @Res({ passthrough: true }) response: Response,
  ): Promise<CreatedImages> {
    const images = await this.receiver.receive(request, response);
    if (images.length === 1 && images[0]) response.setHeader('Location', images[0].url);
    return { images };
  }

  @Get()
  @UseGuards(ApiKeyGuard)
  @ApiKey()
  @ApiOperation({ operationId: 'listImages', summary: 'List images, page by page' })
  @ApiQuery({
    name: 'limit',
    required: false,
    schema: { type: 'integer', minimum: 1, maximum: 100, default: 50 },
  })
  @ApiQuery({ name: 'cursor', required: false, schema: { type: 'string' } })
  @ApiOkResponse({ description: 'A page', type: ImagePage })
  @ApiProblems('INVALID_ARGUMENT', 'UNAUTHENTICATED', 'INTERNAL', 'STORE_UNAVAILABLE')
  list(@Query() query: Record<string, unknown>): Promise<ImagePage> {
    return this.images.list(query);
  }

  @Head(':id')
  @ApiImageId()
  @ApiOperation({ operationId: 'readImageHead', summary: 'The head that GET would answer with' })
  @ApiConditions()
  @ApiOkResponse({ description: 'The image is there', headers: IMAGE_HEADERS })
  @ApiResponse({ status: 304, description: 'The copy that the client has is still good' })
  @ApiResponse({ status: '4XX', description: 'As GET answers, without the problem' })
  @ApiResponse({ status: '5XX', description: 'As GET answers, without the problem' })
  head(
    @Param('id') id: string,
    @Req() request: Request,
    @Res({ passthrough: true }) response: Response,
  ): Promise<StreamableFile | undefined> {
    return this.images.read(id, request, response);
  }

  @Get(':id')
  @ApiImageId()
  @ApiOperation({ operationId: 'readImage', summary: 'Read the bytes exactly as they were sent' })
  @ApiHeader({
    name: 'Range',
    required: false,
    description: 'One range of bytes',
    schema: { type: 'string' },
  })
  @ApiHeader({ name: 'If-Range', required: false, schema: { type: 'string' } })
  @ApiConditions()
  @ApiProduces('image/*')
  @ApiOkResponse({ description: 'The image', headers: IMAGE_HEADERS, schema: BYTES })
  @ApiResponse({
    status: 206,
    description: 'The range of it that was asked for',
    headers: { ...IMAGE_HEADERS, 'Content-Range': { schema: { type: 'string' } } },
    schema: BYTES,
  })
  @ApiResponse({ status: 304, description: 'The copy that the client has is still good' })
  @ApiProblems('INVALID_ARGUMENT', 'NOT_FOUND', 'RANGE_NOT_SATISFIABLE', 'INTERNAL', 'STORE_UNAVAILABLE')
  read(
    @Param('id') id: string,
    @Req() request: Request,
    @Res({ passthrough: true }) response: Response,
  ): Promise<StreamableFile | undefined> {
    return this.images.read(id, request, response);
  }

  @Get(':id/info')
  @ApiImageId()
  @ApiOperation({ operationId: 'readImageInfo', summary: 'What is known of an image' })
  @ApiOkResponse({ description: 'What is known', type: Image })
  @ApiProblems('INVALID_ARGUMENT', 'NOT_FOUND', 'INTERNAL', 'STORE_UNAVAILABLE')
  info(@Param('id') id: string): Promise<Image> {
    return this.images.info(id);
  }

  @Delete(':id')
  @HttpCode(204)
  @UseGuards(ApiKeyGuard)
  @ApiKey()
  @ApiImageId()
  @ApiOperation({ operationId: 'deleteImage', summary: 'Delete an image' })
  @ApiNoContentResponse({ description: 'It is gone' })
  @ApiProblems('INVALID_ARGUMENT', 'UNAUTHENTICATED', 'NOT_FOUND', 'INTERNAL', 'STORE_UNAVAILABLE')
  remove(@Param('id') id: string): Promise<void> {
    return this.images.remove(id);
  }
}
