/** What the pool and a worker thread say to each other. One job at a time a worker; `job` tells stale messages. */
import { HerkosError, classOf, errorClasses, isErrno, messageOf } from '../../base/errors.js';
import type { ErrorClass } from '../../base/errors.js';
import type { ConvertLimits, ConvertProgress, ConvertResult, JoinResult, LayerCompression } from './types.js';

export interface ConvertJob {
  readonly kind: 'convert';
  readonly job: number;
  readonly compression: LayerCompression;
  readonly expectedDiffId: string | undefined;
  readonly expectedDigest: string | undefined;
  readonly expectedBytes: number | undefined;
  readonly temporaryPath: string;
  readonly limits: Partial<ConvertLimits>;
  readonly absoluteNames: 'refuse' | 'strip';
}

export interface JoinJob {
  readonly kind: 'join';
  readonly job: number;
  readonly files: readonly string[];
  readonly temporaryPath: string;
  readonly limits: Partial<ConvertLimits>;
}

export type ToWorker =
  | ConvertJob
  | JoinJob
  /** The next bytes of the source: the first `bytes` of a transferred buffer. */
  | { readonly kind: 'chunk'; readonly job: number; readonly data: ArrayBuffer; readonly bytes: number }
  | { readonly kind: 'end'; readonly job: number }
  | { readonly kind: 'abort'; readonly job: number };

export type FromWorker =
  /** A chunk left the queue; its buffer comes back to be filled again. */
  | { readonly kind: 'taken'; readonly job: number; readonly data: ArrayBuffer }
  | ({ readonly kind: 'progress'; readonly job: number } & ConvertProgress)
  | { readonly kind: 'converted'; readonly job: number; readonly result: ConvertResult }
  | { readonly kind: 'joined'; readonly job: number; readonly result: JoinResult }
  | { readonly kind: 'failed'; readonly job: number; readonly error: SentError };

/** An error as it crosses threads, where classes are lost. */
export interface SentError {
  readonly class: string;
  readonly message: string;
  readonly reason: string | undefined;
}

export function sendableError(error: unknown): SentError {
  const reason = error instanceof HerkosError ? error.reason : undefined;
  if (isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT'))
    return { class: 'ResourceExhausted', message: messageOf(error), reason: 'IMAGE_STORE_FULL' };
  return { class: classOf(error), message: messageOf(error), reason };
}

export function receivedError(sent: SentError): HerkosError {
  const known = Object.hasOwn(errorClasses, sent.class) ? (sent.class as ErrorClass) : 'Internal';
  return new HerkosError(known, sent.message, sent.reason === undefined ? {} : { reason: sent.reason });
}
