import type { Context } from '../../../lib/base/context.js';
import { background } from '../../../lib/base/context.js';
import { buildProgram } from '../../../cmd/herkosctl/program.js';

export interface CliRun {
  readonly stdout: string;
  readonly stderr: string;
  /** What the command threw; undefined when it ended well. */
  readonly error: unknown;
}

/** Runs one command line in this process and keeps what it prints. */
export async function herkosctl(
  socketPath: string,
  args: readonly string[],
  ctx: Context = background(),
  onOutput: (text: string) => void = () => undefined,
): Promise<CliRun> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  const keep = (parts: Buffer[]) => ({
    write: (text: string | Uint8Array) => {
      parts.push(Buffer.from(text as string));
      onOutput(Buffer.concat(parts).toString());
    },
  });
  const program = buildProgram(ctx, { stdout: keep(out), stderr: keep(err) });
  let error: unknown;
  try {
    await program.parseAsync(['node', 'herkosctl', '--socket', socketPath, ...args]);
  } catch (thrown) {
    error = thrown;
  }
  return { stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString(), error };
}
