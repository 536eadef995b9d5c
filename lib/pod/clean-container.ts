/** Giving back everything a container has: idempotent, so that an undo, a removal and a recovery can share it. */
import { background } from '../base/context.js';
import { classOf, messageOf } from '../base/errors.js';
import { cursorPath, diskPath, removeDiskGone } from './disk.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { closePump } from './stop-sandbox.js';
import { settleVm } from './vm-size.js';

/** Ends with the record: as long as that is there, the next daemon knows that something may be left. */
export async function cleanContainer(room: PodRoom, entry: ContainerEntry): Promise<void> {
  const { id } = entry.record;
  const { settings, parts } = room;
  await closePump(entry);
  await cleanGuest(room, entry);
  await room.step(background(), 'releasing the image', 'undoMs', () => parts.images.releaseGone(id));
  await removeDiskGone(diskPath(settings.stateDirectory, id));
  await parts.files.removeGone(cursorPath(settings.stateDirectory, id));
  await room.ledger.deleteContainer(entry);
  room.registry.removeContainer(entry);
  settleVm(room, entry.sandbox);
}

/** Inside the VM, while there is one. A VM that ends meanwhile has done the work itself. */
export async function cleanGuest(room: PodRoom, entry: ContainerEntry): Promise<void> {
  const { live } = entry.sandbox;
  if (live === undefined || live.isVmGone) return;
  const { id } = entry.record;
  try {
    await room.step(live.scope, 'removing the container in the guest', 'undoMs', async (ctx) =>
      (await live.guest(ctx)).removeContainerGone(ctx, id),
    );
  } catch (error) {
    if (!isEnding(live)) throw error;
  }
  try {
    await room.step(live.scope, 'unplugging the container’s devices', 'plugMs', (ctx) =>
      live.vm.unplugGone(ctx, id),
    );
  } catch (error) {
    // A guest may ignore the request; the devices then go with the VM, and their files are read-only or unlinked.
    if (!isEnding(live))
      room.log.warn('a container’s devices stay plugged until its pod ends', {
        container: id,
        error: messageOf(error),
      });
  }
}

function isEnding(live: {
  readonly isVmGone: boolean;
  readonly scope: { readonly signal: AbortSignal };
}): boolean {
  return live.isVmGone || live.scope.signal.aborted;
}

/** Did the guest fail to answer, rather than answer with an error? */
export function isNoAnswer(error: unknown): boolean {
  return ['DeadlineExceeded', 'Unavailable', 'Cancelled'].includes(classOf(error));
}
