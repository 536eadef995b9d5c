#!/usr/bin/env node
import { CommanderError } from 'commander';

import { background, withCancel } from '../../lib/base/context.js';
import { HerkosError, classOf, isErrno, messageOf } from '../../lib/base/errors.js';
import { Exit, NotRun, WrongUsage, exitCodes } from './exit-codes.js';
import { buildProgram } from './program.js';

/** Ctrl-C ends the context: whatever is under way is given up, and what was made for it is removed. */
const interrupt = withCancel(background());
let interrupted = false;
const onSignal = (): void => {
  // A second one does not wait for the clean-up.
  if (interrupted) process.exit(exitCodes.interrupted);
  interrupted = true;
  interrupt.cancel(new HerkosError('Cancelled', 'interrupted'));
};
process.on('SIGINT', onSignal);
process.on('SIGTERM', onSignal);
/** The exit code when nobody can take what we say; whatever is under way ends as with Ctrl-C, and is cleaned up. */
let unheard: number | undefined;
const giveUp = (exitCode: number): void => {
  unheard ??= exitCode;
  // The command may have ended well before its output was found to be lost.
  if (process.exitCode === undefined || process.exitCode === exitCodes.ok) process.exitCode = unheard;
  interrupt.cancel(new HerkosError('Cancelled', 'the output cannot be written'));
};
process.stdout.on('error', (error) => {
  // `herkosctl logs | head`: nobody reads any more, which is no error.
  if (isErrno(error, 'EPIPE')) {
    giveUp(exitCodes.ok);
    return;
  }
  if (unheard === undefined)
    process.stderr.write(`herkosctl: cannot write to standard output: ${messageOf(error)}\n`);
  giveUp(exitCodes.error);
});
// There is no place left to say so. What the command was to do may not be done.
process.stderr.on('error', () => {
  giveUp(exitCodes.error);
});

try {
  await buildProgram(interrupt, process).parseAsync(process.argv);
} catch (error) {
  process.exitCode = exitCodeOf(error);
} finally {
  interrupt.cancel();
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Exit) return error.code === exitCodes.ok ? (unheard ?? exitCodes.ok) : error.code;
  // Commander has told the user already, and help is not an error.
  if (error instanceof CommanderError)
    return error.exitCode === 0 ? (unheard ?? exitCodes.ok) : exitCodes.usage;
  if (unheard !== undefined && classOf(error) === 'Cancelled') return unheard;
  if (interrupted) return exitCodes.interrupted;
  process.stderr.write(`herkosctl: ${messageOf(error).replaceAll('\n', ' ')}\n`);
  if (error instanceof WrongUsage) return exitCodes.usage;
  return error instanceof NotRun ? exitCodes.notRun : exitCodes.error;
}
