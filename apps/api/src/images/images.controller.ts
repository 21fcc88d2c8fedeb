import {
  Controller,
  Delete,
  Get,
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
    'UNAUTHENTICATED',
    'UPLOAD_TIMEOUT',
    'IMAGE_TOO_LARGE',
    'UNSUPPORTED_IMAGE',
    'UNSUPPORTED_MEDIA_TYPE',
    'CORRUPT_IMAGE',
    'TOO_MANY_PIXELS',
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
  @ApiOkResponse({ type: ImagePage })
  @ApiProblems('INVALID_ARGUMENT', 'UNAUTHENTICATED', 'INTERNAL', 'STORE_UNAVAILABLE')
  list(@Query() query: Record<string, unknown>): Promise<ImagePage> {
    return this.images.list(query);
  }

  @Get(':id')
  @ApiImageId()
  @ApiOperation({ operationId: 'readImage', summary: 'Read the bytes exactly as they were sent' })
  @ApiHeader({ name: 'Range', required: false })
  @ApiHeader({ name: 'If-None-Match', required: false })
  @ApiHeader({ name: 'If-Modified-Since', required: false })
  @ApiProduces('image/*')
  @ApiOkResponse({ description: 'The image', schema: { type: 'string', format: 'binary' } })
  @ApiProblems('NOT_FOUND', 'RANGE_NOT_SATISFIABLE', 'INTERNAL', 'STORE_UNAVAILABLE')
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
  @ApiOkResponse({ type: Image })
  @ApiProblems('NOT_FOUND', 'INTERNAL', 'STORE_UNAVAILABLE')
  info(@Param('id') id: string): Promise<Image> {
    return this.images.info(id);
  }

  @Delete(':id')
  @HttpCode(204)
  @UseGuards(ApiKeyGuard)
  @ApiKey()
  @ApiImageId()
  @ApiOperation({ operationId: 'deleteImage', summary: 'Delete an image' })
  @ApiNoContentResponse()
  @ApiProblems('UNAUTHENTICATED', 'NOT_FOUND', 'INTERNAL', 'STORE_UNAVAILABLE')
  remove(@Param('id') id: string): Promise<void> {
    return this.images.remove(id);
  }
}
