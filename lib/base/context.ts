/**
 * Deadline and cancel travel together, as the first parameter `ctx` of everything that may take
 * long. A step that sees `ctx.signal` aborted stops and throws the signal's reason, which is always
 * a HerkosError of class `Cancelled` or `DeadlineExceeded`.
 */
import { setMaxListeners } from 'node:events';

import { HerkosError } from './errors.js';

export interface Context {
  readonly signal: AbortSignal;
  /** Epoch milliseconds after which `signal` is aborted; Infinity when there is no deadline. */
  readonly deadlineMs: number;
}

export interface CancellableContext extends Context {
  /** Aborts the context and frees its timer; calling it twice is harmless. */
  cancel(reason?: HerkosError): void;
}

const never = new AbortController().signal;
// All that runs without a caller listens to it for as long as it runs.
setMaxListeners(0, never);
/** What a timer can wait at most; a longer wait would end at once. */
const timerMsMax = 2 ** 31 - 1;

/** A context that never ends: for start-up, recovery and undo work. */
export function background(): Context {
  return { signal: never, deadlineMs: Number.POSITIVE_INFINITY };
}

/** A child context that can be cancelled on its own. */
export function withCancel(parent: Context): CancellableContext {
  return derive(parent, Number.POSITIVE_INFINITY, '');
}

/** A child context that ends after `timeoutMs` with `DeadlineExceeded: <what> took longer than …`. */
export function withTimeout(parent: Context, timeoutMs: number, what: string): CancellableContext {
  return derive(parent, timeoutMs, what);
}

/** Runs `body` under a deadline and always frees the timer. */
export async function underDeadline<T>(
  parent: Context,
  timeoutMs: number,
  what: string,
  body: (ctx: Context) => Promise<T>,
): Promise<T> {
  const ctx = withTimeout(parent, timeoutMs, what);
  try {
    return await abortable(ctx, body(ctx));
  } finally {
    ctx.cancel();
  }
}

/** Throws the reason when the context has ended. */
export function throwIfDone(ctx: Context): void {
  if (ctx.signal.aborted) throw reasonOf(ctx.signal);
}

/** Settles as `promise` does, or rejects as soon as the context ends. The work itself must watch `ctx`. */
export async function abortable<T>(ctx: Context, promise: Promise<T>): Promise<T> {
  if (ctx.signal === never) return promise;
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => {
      reject(reasonOf(ctx.signal));
    };
    if (ctx.signal.aborted) {
      promise.catch(() => undefined);
      onAbort();
      return;
    }
    ctx.signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => {
      ctx.signal.removeEventListener('abort', onAbort);
    });
  });
}

/** Sleeps, or throws the context's reason. */
export async function sleep(ctx: Context, ms: number): Promise<void> {
  throwIfDone(ctx);
  let timer: NodeJS.Timeout | undefined;
  try {
    await abortable(
      ctx,
      new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms);
      }),
    );
  } finally {
    clearTimeout(timer);
  }
}

function reasonOf(signal: AbortSignal): HerkosError {
  const reason: unknown = signal.reason;
  return reason instanceof HerkosError ? reason : new HerkosError('Cancelled', 'the request was cancelled');
}

function derive(parent: Context, timeoutMs: number, what: string): CancellableContext {
  const controller = new AbortController();
  // A pull of many layers has many waiters on one signal; each of them leaves when it is done.
  setMaxListeners(0, controller.signal);
  const onParent = (): void => {
    controller.abort(reasonOf(parent.signal));
  };
  let timer: NodeJS.Timeout | undefined;
  const free = (): void => {
    clearTimeout(timer);
    parent.signal.removeEventListener('abort', onParent);
  };
  if (parent.signal.aborted) onParent();
  else {
    if (parent.signal !== never) parent.signal.addEventListener('abort', onParent, { once: true });
    if (Number.isFinite(timeoutMs)) {
      timer = setTimeout(
        () => {
          controller.abort(
            new HerkosError('DeadlineExceeded', `${what} took longer than ${String(timeoutMs)} ms`),
          );
        },
        Math.min(timeoutMs, timerMsMax),
      );
    }
  }
  return {
    signal: controller.signal,
    deadlineMs: Math.min(parent.deadlineMs, Date.now() + timeoutMs),
    cancel(reason): void {
      free();
      if (!controller.signal.aborted)
        controller.abort(reason ?? new HerkosError('Cancelled', 'the request was cancelled'));
    },
  };
}
