import Long from 'long';

import { Exit, orNotRun } from './exit-codes.js';
import type { Session } from './session.js';
import { findContainer } from './targets.js';

export interface ExecOptions {
  readonly container?: string;
  /** Seconds; 0 waits for ever. */
  readonly timeout: number;
}

/** Runs a command to its end; its output and exit code become this command's. */
export async function execCommand(
  session: Session,
  target: string,
  cmd: readonly string[],
  options: ExecOptions,
): Promise<void> {
  const answer = await orNotRun(async () => {
    const { id } = await findContainer(session, target, options.container);
    const request = { containerId: id, cmd: [...cmd], timeout: Long.fromNumber(options.timeout) };
    // No time limit of ours: the daemon keeps the command's.
    return session.client.call(session.ctx, session.rpc.execSync, request);
  });
  const { exitCode, stdout, stderr } = answer;
  session.output.result(
    { exitCode, stdout: Buffer.from(stdout).toString('utf8'), stderr: Buffer.from(stderr).toString('utf8') },
    () => {
      session.output.stdout.write(stdout);
      session.output.stderr.write(stderr);
    },
  );
  throw new Exit(exitCode);
}
