/** What the shell sees (docs/herkosctl.md): commands that run something pass its exit code on. */
import { HerkosError } from '../../lib/base/errors.js';

export const exitCodes = {
  ok: 0,
  error: 1,
  /** The command line itself is wrong. */
  usage: 2,
  /** `run` and `exec`: herkos failed before the command could run; any other code is the command's own. */
  notRun: 125,
  /** 128 + SIGINT. */
  interrupted: 130,
} as const;

/** An end with a given code; its message, when there is one, has been told already. */
export class Exit extends Error {
  constructor(readonly code: number) {
    super(`exit ${String(code)}`);
  }
}

/** What is wrong with the command line, where Commander would repeat a value that nobody else may read. */
export class WrongUsage extends HerkosError {}

/** Errors before the command ran become `notRun`, so that a script can tell them from the command's failure. */
export class NotRun extends HerkosError {}

export async function orNotRun<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof HerkosError) || error.class === 'Cancelled') throw error;
    throw new NotRun(error.class, error.message, { cause: error });
  }
}
