/** Builds the agent: a static program, as the guest has no dynamic loader when it starts. */
import { join } from 'node:path';

import { underDeadline } from '../lib/base/context.js';
import type { Context } from '../lib/base/context.js';
import type { Exec } from '../lib/base/exec.js';

const cargoTimeoutMs = 900_000;
const cargoOutputBytesMax = 16 * 1024 * 1024;
const target = 'x86_64-unknown-linux-gnu';

/** Path of the agent, built if anything of it changed. */
export async function buildAgent(
  ctx: Context,
  exec: Exec,
  projectRoot: string,
  say: (line: string) => void,
): Promise<string> {
  const directory = join(projectRoot, 'agent');
  // Said twice, as the environment or the user's configuration may name places of their own.
  const options = ['--release', '--locked', '--target', target, '--target-dir', join(directory, 'target')];
  say('building the agent');
  await underDeadline(ctx, cargoTimeoutMs, 'building the agent', (step) =>
    exec.run(step, 'cargo', ['build', ...options], {
      cwd: directory,
      outputBytesMax: cargoOutputBytesMax,
    }),
  );
  return join(directory, 'target', target, 'release', 'herkos-agent');
}
