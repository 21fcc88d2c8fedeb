import { All, Controller, HttpStatus, Req, Res } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { type Request, type Response } from 'express';
import { Problem } from './problem/problem.js';

/** Answers the methods that nobody before it took: last in the module, it sees only those. */
@ApiExcludeController()
@Controller()
export class NotAllowedController {
  @All('images')
  images(@Req() request: Request, @Res() response: Response): void {
    refuse(request, response, 'GET, HEAD, POST, OPTIONS');
  }

  @All('images/:id')
  image(@Req() request: Request, @Res() response: Response): void {
    refuse(request, response, 'GET, HEAD, DELETE, OPTIONS');
  }

  @All(['images/:id/info', 'health', 'health/live', 'health/ready', 'metrics'])
  readOnly(@Req() request: Request, @Res() response: Response): void {
    refuse(request, response, 'GET, HEAD, OPTIONS');
  }
}

/** RFC 9110: a 405 names the methods that are allowed, and OPTIONS asks for just that. */
function refuse(request: Request, response: Response, allowed: string): void {
  response.setHeader('Allow', allowed);
  if (request.method !== 'OPTIONS') {
    throw new Problem('METHOD_NOT_ALLOWED', `${request.method} is not allowed here; ${allowed} are.`);
  }
  response.status(HttpStatus.NO_CONTENT).end();
}
