import type { CancellableContext } from '../base/context.js';
import { background, withCancel, withTimeout } from '../base/context.js';
import { HerkosError } from '../base/errors.js';

/** Longest delay that a timer takes; a longer one would fire at once. */
const timerDelayMsMax = 2 ** 31 - 1;

/** What unary and streaming calls have in common. */
interface Call {
  getDeadline(): Date | number;
  on(event: 'cancelled', listener: () => void): unknown;
}

/**
 * The context of one call: ends when the client goes away, cancels, or its deadline passes. The caller
 * cancels it when the call has been answered, so that nothing goes on for a client that has its answer.
 */
export function callContext(call: Call, rpc: string): CancellableContext {
  const remainingMs = Number(call.getDeadline()) - Date.now();
  const ctx =
    remainingMs > timerDelayMsMax
      ? withCancel(background())
      : withTimeout(background(), Math.max(0, Math.ceil(remainingMs)), rpc);
  call.on('cancelled', () => {
    // At the deadline the transport may report a cancel before the timer has fired.
    const late = Date.now() >= ctx.deadlineMs;
    ctx.cancel(
      late
        ? new HerkosError('DeadlineExceeded', `${rpc}: the client's deadline has passed`)
        : new HerkosError('Cancelled', `${rpc}: the client has given the request up`),
    );
  });
  return ctx;
}
