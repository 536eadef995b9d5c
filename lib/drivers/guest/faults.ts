/** gRPC's errors as errors of Herkos. */
import type { ServiceError } from '@grpc/grpc-js';

import { HerkosError, errorClasses, messageOf } from '../../base/errors.js';
import type { ErrorClass } from '../../base/errors.js';
import { cleanText } from './check.js';

const classes = new Map<number, ErrorClass>(
  Object.entries(errorClasses).map(([name, code]) => [code, name as ErrorClass]),
);
const cancelledCode: number = errorClasses.Cancelled;

/** The connection is gone; the caller may connect again. */
export function lostConnection(): HerkosError {
  return new HerkosError('Unavailable', 'the connection to the guest is lost', {
    reason: 'GUEST_CONNECTION_LOST',
  });
}

/** What a failed call means. `Cancelled` is ours alone: a guest that says it has stopped by itself. */
export function callError(error: unknown, what: string): HerkosError {
  if (error instanceof HerkosError) return error;
  if (!isServiceError(error)) return new HerkosError('Internal', `${what}: ${cleanText(messageOf(error))}`);
  const code: number = error.code;
  const errorClass = code === cancelledCode ? 'Aborted' : (classes.get(code) ?? 'Unknown');
  return new HerkosError(errorClass, `${what}: ${cleanText(error.details)}`, { cause: error });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && typeof error.code === 'number';
}
