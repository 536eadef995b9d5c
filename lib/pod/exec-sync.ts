import type { Context } from '../base/context.js';
import { abortable, withTimeout } from '../base/context.js';
import { HerkosError } from '../base/errors.js';
import { MIB } from '../base/units.js';
import { encodeProcess } from '../wire/ocispec/codec.js';
import type { OciProcess } from '../wire/ocispec/types.js';
import { livePodOf } from './create-container.js';
import type { GuestExecResult } from './ports.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { execProcess } from './spec/build-spec.js';
import { either, takeStep } from './steps.js';

/** Of each stream; both together must fit the client's limit of 16 MiB with room to spare. */
export const execOutputBytesMax = 6 * MIB;

/**
 * Runs a command in a running container as its user, with its environment, directory and rights. A non-zero
 * exit is a result, not an error. @param timeoutSeconds 0: as long as the caller waits
 * @throws NotFound, FailedPrecondition when it does not run, DeadlineExceeded when the time is up (the command
 *   and its children have been killed then)
 */
export async function execSync(
  room: PodRoom,
  ctx: Context,
  id: string,
  command: readonly string[],
  timeoutSeconds: number,
): Promise<GuestExecResult> {
  const entry = room.registry.container(id);
  await abortable(ctx, entry.sandbox.recovered.opened);
  if (command.length === 0 || command[0] === '')
    throw new HerkosError('InvalidArgument', 'there is no command to run');
  const live = livePodOf(entry.sandbox);
  const ociProcess = encodeProcess(execProcess(processOf(entry), command));
  const scope = either(ctx, live.scope);
  const timeoutMs =
    timeoutSeconds > 0 ? Math.min(timeoutSeconds * 1000, timerMsMax) : Number.POSITIVE_INFINITY;
  const timed = withTimeout(scope, timeoutMs, 'the command');
  try {
    return await takeStep(
      timed,
      {
        what: 'the command',
        timeoutMs: Number.POSITIVE_INFINITY,
        settleMs: room.settings.deadlines.settleMs,
      },
      async (step) =>
        (await live.guest(step)).exec(step, {
          containerId: entry.record.id,
          ociProcess,
          outputBytesMax: execOutputBytesMax,
        }),
    );
  } finally {
    timed.cancel();
    scope.cancel();
  }
}

/** A longer timer of the platform would fire at once. */
const timerMsMax = 2 ** 31 - 1;

/** @throws FailedPrecondition */
function processOf(entry: ContainerEntry): OciProcess {
  const { record } = entry;
  if (record.phase !== 'running' || record.ociProcess === undefined)
    throw new HerkosError('FailedPrecondition', `the container ${record.id} does not run`);
  return JSON.parse(record.ociProcess) as OciProcess;
}
