/**
 * Errors of Herkos: a closed set of classes, equal to the gRPC status codes, and a stable reason
 * that logs, tests and docs/errors.md can name. The conversion to gRPC happens in `lib/cri` alone.
 */

/** Classes carry the number of the gRPC code they become (google.golang.org/grpc/codes). */
export const errorClasses = {
  Cancelled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

export type ErrorClass = keyof typeof errorClasses;

export interface HerkosErrorOptions {
  /** What led to this error; kept for the log, never sent to a client as a stack. */
  readonly cause?: unknown;
  /** A documented, stable code such as `IMAGE_DIGEST_MISMATCH` (docs/errors.md). */
  readonly reason?: string;
}

/** The message says what was wrong and, where the reader can act, what to do. */
export class HerkosError extends Error {
  override readonly name = 'HerkosError';
  readonly class: ErrorClass;
  readonly reason: string | undefined;

  constructor(errorClass: ErrorClass, message: string, options: HerkosErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.class = errorClass;
    this.reason = options.reason;
  }
}

/** The class of any thrown value; what is not a HerkosError is `Internal`. */
export function classOf(error: unknown): ErrorClass {
  return error instanceof HerkosError ? error.class : 'Internal';
}

/** The message of any thrown value, never empty. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message === '' ? error.name : error.message;
  return String(error);
}

/** `doing: what went wrong`, with the class and reason of the cause kept. */
export function wrap(error: unknown, doing: string): HerkosError {
  const reason = error instanceof HerkosError ? error.reason : undefined;
  return new HerkosError(classOf(error), `${doing}: ${messageOf(error)}`, {
    cause: error,
    ...(reason === undefined ? {} : { reason }),
  });
}

/** True when `error` is a system error with this errno name, such as `ENOENT`. */
export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
