/** The one place where errors become gRPC statuses. */
import { Metadata, status } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';

import type { ErrorClass } from '../base/errors.js';
import { HerkosError, classOf, messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';

/** The same numbers as `errorClasses`, in the library's type. */
export const statusCodes: Readonly<Record<ErrorClass, status>> = {
  Cancelled: status.CANCELLED,
  Unknown: status.UNKNOWN,
  InvalidArgument: status.INVALID_ARGUMENT,
  DeadlineExceeded: status.DEADLINE_EXCEEDED,
  NotFound: status.NOT_FOUND,
  AlreadyExists: status.ALREADY_EXISTS,
  PermissionDenied: status.PERMISSION_DENIED,
  ResourceExhausted: status.RESOURCE_EXHAUSTED,
  FailedPrecondition: status.FAILED_PRECONDITION,
  Aborted: status.ABORTED,
  Unimplemented: status.UNIMPLEMENTED,
  Internal: status.INTERNAL,
  Unavailable: status.UNAVAILABLE,
  DataLoss: status.DATA_LOSS,
  Unauthenticated: status.UNAUTHENTICATED,
};

/** Trailer that carries an error's reason (docs/errors.md). */
export const reasonTrailer = 'herkos-reason';

/**
 * HTTP/2 peers refuse header blocks above 16 KiB, and a status message is percent-encoded there: a longer
 * one would reach the client as a broken connection.
 */
const messageEncodedBytesMax = 8 * 1024;

/**
 * The status that the client sees. Classes are codes, messages stay as they are. A value that is not a
 * HerkosError is a fault of this program: it becomes INTERNAL, and its stack and cause go to the log.
 */
export function toServiceError(error: unknown, rpc: string, log: Logger): ServiceError {
  const errorClass = classOf(error);
  const message = messageOf(error);
  const reason = error instanceof HerkosError ? error.reason : undefined;
  const fields = { rpc, class: errorClass, error: message, reason, cause: causesOf(error) };
  if (errorClass === 'Internal') log.error('request failed', { ...fields, stack: stackOf(error) });
  else if (errorClass === 'NotFound' || errorClass === 'Cancelled') log.debug('request failed', fields);
  else log.warn('request failed', fields);
  const metadata = new Metadata();
  if (reason !== undefined) metadata.set(reasonTrailer, reason);
  const details = sendable(message);
  return Object.assign(new Error(details), { code: statusCodes[errorClass], details, metadata });
}

/** Messages of the errors behind an error, outermost first. */
function causesOf(error: unknown): string | undefined {
  const messages: string[] = [];
  let cause = error instanceof Error ? error.cause : undefined;
  while (cause !== undefined && messages.length < causesMax) {
    messages.push(messageOf(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return messages.length === 0 ? undefined : messages.join('; ');
}

const causesMax = 8;

function stackOf(error: unknown): string | undefined {
  return error instanceof Error ? error.stack : undefined;
}

/** Cut to what fits a header; half characters, which cannot be encoded at all, are replaced. */
function sendable(message: string): string {
  const whole = message.replaceAll(/\p{Surrogate}/gu, '\ufffd');
  if (encodeURI(whole).length <= messageEncodedBytesMax) return whole;
  let cut = '';
  let bytes = 0;
  for (const character of whole) {
    bytes += encodeURI(character).length;
    if (bytes > messageEncodedBytesMax) break;
    cut += character;
  }
  return `${cut}…`;
}
