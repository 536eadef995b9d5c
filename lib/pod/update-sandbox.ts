import type { Context } from '../base/context.js';
import { abortable } from '../base/context.js';
import type { LinuxResources } from '../model/resources.js';
import { livePodOf } from './create-container.js';
import type { LivePod } from './live-pod.js';
import type { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { either } from './steps.js';
import { growLocked, settleVm, wantedSize, withSizeLock } from './vm-size.js';

/** What is not named stays as it is. */
export interface SandboxChange {
  readonly resources?: LinuxResources;
  readonly overhead?: LinuxResources;
}

/**
 * Keeps the pod's new sums and brings its VM to them. @throws NotFound, FailedPrecondition when it is not
 * ready, ResourceExhausted when the node or the guest cannot; nothing has changed then
 */
export async function updateSandbox(
  room: PodRoom,
  ctx: Context,
  id: string,
  change: SandboxChange,
): Promise<void> {
  const entry = room.registry.sandbox(id);
  await abortable(ctx, entry.recovered.opened);
  const live = livePodOf(entry);
  const scope = either(ctx, live.scope);
  const work = withSizeLock(room, scope, entry, live, () => update(room, scope, entry, live, change));
  entry.busy.add(work);
  try {
    await work;
  } finally {
    entry.busy.delete(work);
    scope.cancel();
    // Less may do now; or something was given and then not needed.
    settleVm(room, entry);
  }
}

async function update(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  live: LivePod,
  change: SandboxChange,
): Promise<void> {
  const config = { ...entry.record.config, ...change };
  await growLocked(room, ctx, live, wantedSize(room, entry, live, { pod: config }));
  await room.ledger.putSandbox(entry, { ...entry.record, config });
}
