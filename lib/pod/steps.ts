/** How this room takes a step of work that changes the outside world. */
import type { CancellableContext, Context } from '../base/context.js';
import { background, throwIfDone, withCancel, withTimeout } from '../base/context.js';
import { HerkosError } from '../base/errors.js';

export interface Step<T> {
  readonly what: string;
  readonly timeoutMs: number;
  /** After the context has ended the step may take so much longer to stop by itself. */
  readonly settleMs: number;
  /** Undoes a step that finished after it had been given up. */
  readonly late?: (value: T) => void;
}

/**
 * Runs `body` under a deadline. Unlike a plain deadline it waits for a body that is stopping, because
 * undoing a step while it is still at work would race with it; a body that does not stop is given up.
 */
export async function takeStep<T>(
  ctx: Context,
  step: Step<T>,
  body: (ctx: Context) => Promise<T>,
): Promise<T> {
  throwIfDone(ctx);
  const inner = withTimeout(ctx, step.timeoutMs, step.what);
  try {
    return await settleOrGiveUp(inner, step, body(inner));
  } finally {
    inner.cancel();
  }
}

async function settleOrGiveUp<T>(ctx: CancellableContext, step: Step<T>, work: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    let givenUp = false;
    const onAbort = (): void => {
      timer = setTimeout(() => {
        givenUp = true;
        reject(reasonOf(ctx));
      }, step.settleMs);
    };
    if (ctx.signal.aborted) onAbort();
    else ctx.signal.addEventListener('abort', onAbort, { once: true });
    work
      .then(
        (value) => {
          if (givenUp) step.late?.(value);
          else resolve(value);
        },
        // What stopped because the context ended often says so in its own words; the reason says why.
        (error: unknown) => {
          reject(ctx.signal.aborted ? reasonOf(ctx) : (error as Error));
        },
      )
      .finally(() => {
        clearTimeout(timer);
        ctx.signal.removeEventListener('abort', onAbort);
      });
  });
}

/** Runs all bodies at once. When one fails the others are stopped and waited for; the first error is thrown. */
export async function together<const T extends readonly ((ctx: Context) => Promise<unknown>)[]>(
  ctx: Context,
  ...bodies: T
): Promise<{ -readonly [K in keyof T]: Awaited<ReturnType<T[K]>> }> {
  const inner = withCancel(ctx);
  const errors: unknown[] = [];
  const results = await Promise.all(
    bodies.map(async (body) => {
      try {
        return await body(inner);
      } catch (error) {
        errors.push(error);
        inner.cancel();
        return undefined;
      }
    }),
  );
  inner.cancel();
  if (errors.length > 0) throw errors[0];
  return results as { -readonly [K in keyof T]: Awaited<ReturnType<T[K]>> };
}

/** A context that ends when either does. Cancel it to free what it holds. */
export function either(ctx: Context, other: Context): CancellableContext {
  const inner = withCancel(ctx);
  const onOther = (): void => {
    inner.cancel(reasonOf(other));
  };
  if (other.signal.aborted) onOther();
  else {
    other.signal.addEventListener('abort', onOther, { once: true });
    inner.signal.addEventListener(
      'abort',
      () => {
        other.signal.removeEventListener('abort', onOther);
      },
      { once: true },
    );
  }
  return inner;
}

/** Tries `body` under a deadline of its own, whatever became of the request; says whether it worked. */
export async function attempt(
  timeoutMs: number,
  what: string,
  body: (ctx: Context) => Promise<unknown>,
  onError: (error: unknown) => void,
): Promise<boolean> {
  try {
    await takeStep(background(), { what, timeoutMs, settleMs: 0 }, body);
    return true;
  } catch (error) {
    onError(error);
    return false;
  }
}

export function reasonOf(ctx: Context): HerkosError {
  const reason: unknown = ctx.signal.reason;
  return reason instanceof HerkosError ? reason : new HerkosError('Cancelled', 'the request was cancelled');
}
