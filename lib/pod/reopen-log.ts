import type { Context } from '../base/context.js';
import { abortable } from '../base/context.js';
import { HerkosError } from '../base/errors.js';
import type { PodRoom } from './room.js';

/**
 * After a rotation: the log goes on in a new file at its path, which exists when this returns; no byte goes
 * to the renamed one any more. On failure nothing has changed. @throws NotFound, FailedPrecondition when the
 * container does not run
 */
export async function reopenLog(room: PodRoom, ctx: Context, id: string): Promise<void> {
  const entry = room.registry.container(id);
  await abortable(ctx, entry.sandbox.recovered.opened);
  if (entry.record.phase !== 'running' || entry.pump === undefined)
    throw new HerkosError('FailedPrecondition', `the container ${entry.record.id} does not run`);
  await abortable(ctx, entry.pump.reopen());
}
