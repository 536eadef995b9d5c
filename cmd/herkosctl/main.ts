#!/usr/bin/env node
import { CommanderError } from 'commander';

import { background, withCancel } from '../../lib/base/context.js';
import { HerkosError, isErrno, messageOf } from '../../lib/base/errors.js';
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
process.stdout.on('error', (error) => {
  // `herkosctl logs | head`: nobody reads any more, which is no error.
  if (isErrno(error, 'EPIPE')) process.exit(process.exitCode ?? exitCodes.ok);
  process.stderr.write(`herkosctl: cannot write to standard output: ${messageOf(error)}\n`);
  process.exit(exitCodes.error);
});
// There is no place left to say so. What the command was to do may not be done.
process.stderr.on('error', () => process.exit(process.exitCode ?? exitCodes.error));

try {
  await buildProgram(interrupt, process).parseAsync(process.argv);
} catch (error) {
  process.exitCode = exitCodeOf(error);
} finally {
  interrupt.cancel();
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Exit) return error.code;
  // Commander has told the user already, and help is not an error.
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (interrupted) return exitCodes.interrupted;
  process.stderr.write(`herkosctl: ${messageOf(error).replaceAll('\n', ' ')}\n`);
  if (error instanceof WrongUsage) return exitCodes.usage;
  return error instanceof NotRun ? exitCodes.notRun : exitCodes.error;
}
