import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException } from '@nestjs/common';
import { type Response } from 'express';
import { ImageError } from '#image-format';
import { ObjectExistsError, ObjectNotFoundError, StoreUnavailableError } from '#object-store';
import { answerProblem } from './answer.js';
import { ClientGoneError, Problem, PROBLEMS, type ProblemCode } from './problem.js';

/** Renders whatever a request throws, Nest's and Express's own errors included, as one kind of problem. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  catch(error: unknown, host: ArgumentsHost): void {
    this.answer(error, host.switchToHttp().getResponse<Response>());
  }

  answer(error: unknown, response: Response): void {
    // The one log line of the request tells what became of it.
    response.locals['code'] = codeOf(error);
    if (error instanceof ClientGoneError) {
      response.destroy();
      return;
    }
    const problem = toProblem(error);
    if (PROBLEMS[problem.code].status >= 500) response.err = problem;
    answerProblem(response.req, response, problem);
  }
}

/** What became of a request or an image, for the log and the metrics. */
export function codeOf(error: unknown): ProblemCode | ClientGoneError['code'] {
  return error instanceof ClientGoneError ? error.code : toProblem(error).code;
}

function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof ImageError) return new Problem(error.code, error.message);
  if (error instanceof ObjectNotFoundError) {
    return new Problem('NOT_FOUND', 'No image has this id; it may have been deleted.');
  }
  if (error instanceof ObjectExistsError) {
    return new Problem(
      'IDEMPOTENCY_KEY_REUSED',
      'An image of the request differs from the one that was sent at its place under this Idempotency-Key before; send a new key with new images.',
    );
  }
  if (error instanceof StoreUnavailableError) {
    return new Problem(
      'STORE_UNAVAILABLE',
      "The object store can't be reached or refuses to work. Nothing was kept; try again shortly.",
      { cause: error },
    );
  }
  const status = statusOf(error);
  const code = status === undefined ? undefined : CODES[status];
  if (code === undefined) {
    return new Problem('INTERNAL', 'The request failed on our side; its id helps us to find out why.', {
      cause: error,
    });
  }
  return new Problem(
    code,
    code === 'NOT_FOUND' ? 'There is nothing at this address; /docs lists what there is.' : messageOf(error),
  );
}

/** What Nest and Express throw on their own, before or beside our code. */
const CODES: Partial<Record<number, ProblemCode>> = {
  400: 'INVALID_ARGUMENT',
  404: 'NOT_FOUND',
  405: 'METHOD_NOT_ALLOWED',
  413: 'IMAGE_TOO_LARGE',
  415: 'UNSUPPORTED_MEDIA_TYPE',
};

function statusOf(error: unknown): number | undefined {
  if (error instanceof HttpException) return error.getStatus();
  // Express marks its own errors (a path that can't be decoded, say) so.
  const status = (error as { status?: unknown } | null | undefined)?.status;
  return typeof status === 'number' ? status : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.message}.` : 'The request is invalid.';
}
