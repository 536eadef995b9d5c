/** Ctrl-C and SIGTERM: what is under way fails soon, cleans up after itself, and nothing else begins. */
import { background, withCancel } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { runningDaemons } from '../tools/herkosd-process.js';

/** The whole run. */
export const run = withCancel(background());

const exitCodeInterrupted = 130;
const signals = ['SIGINT', 'SIGTERM'] as const;

/** From now on a signal ends the run in order; a second one at once. */
export function watchSignals(): void {
  for (const signal of signals) process.on(signal, onSignal);
}

export function isInterrupted(): boolean {
  return run.signal.aborted;
}

function onSignal(): void {
  if (isInterrupted()) process.exit(exitCodeInterrupted);
  process.exitCode = exitCodeInterrupted;
  console.error('    interrupted: cleaning up; a second time leaves at once, and what is there stays');
  run.cancel(new HerkosError('Cancelled', 'the benchmarks were interrupted'));
  // Calls that wait for an answer end with the daemon.
  for (const daemon of runningDaemons) void daemon.crash();
}
