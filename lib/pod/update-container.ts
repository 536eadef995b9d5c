import { isDeepStrictEqual } from 'node:util';

import type { Context } from '../base/context.js';
import { abortable, background } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import type { ContainerRecord } from '../model/container.js';
import { hasExited } from '../model/container-state.js';
import type { LinuxResources } from '../model/resources.js';
import { changedResources } from '../model/resources.js';
import { livePodOf } from './create-container.js';
import type { LivePod } from './live-pod.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import type { OciLimits } from './spec/resources.js';
import { limitsBack, limitsOf } from './spec/resources.js';
import { either } from './steps.js';
import { growLocked, settleVm, wantedSize, withSizeLock } from './vm-size.js';

/**
 * Changes the limits of a container that lives; what the change does not name stays. The VM grows first
 * and shrinks last. When it fails the former limits hold, and so the record says.
 * @throws NotFound, FailedPrecondition when it has ended, InvalidArgument or Unimplemented for limits that
 * cannot be, ResourceExhausted when the node or the guest cannot give so much
 */
export async function updateContainer(
  room: PodRoom,
  ctx: Context,
  id: string,
  change: LinuxResources,
): Promise<void> {
  const entry = room.registry.container(id);
  const { sandbox } = entry;
  await abortable(ctx, sandbox.recovered.opened);
  refuseEnded(entry);
  const live = livePodOf(sandbox);
  const scope = either(ctx, live.scope);
  const work = withSizeLock(room, scope, sandbox, live, () => update(room, scope, entry, live, change));
  sandbox.busy.add(work);
  try {
    await work;
  } finally {
    sandbox.busy.delete(work);
    scope.cancel();
    settleVm(room, sandbox);
  }
}

async function update(
  room: PodRoom,
  ctx: Context,
  entry: ContainerEntry,
  live: LivePod,
  change: LinuxResources,
): Promise<void> {
  refuseEnded(entry);
  const before = entry.record.config.resources;
  const after = changedResources(before, change);
  // A change that could not be taken back is still in the guest, perhaps.
  const pending = entry.record.changingTo;
  const limits = pending === undefined ? limitsOf(after) : limitsBack(after, pending);
  if (pending === undefined && isDeepStrictEqual(limits, limitsOf(before))) {
    // What the guest does not have, such as CPU sets of the node, is only remembered.
    if (!isDeepStrictEqual(after, before))
      await put(room, ctx, entry, (record) => withResources(record, after));
    return;
  }
  // Refused before it is written, where it would count as asked for.
  wantedSize(room, entry.sandbox, live, { changing: { container: entry, to: after } });
  await put(room, ctx, entry, (record) => ({ ...record, changingTo: after }));
  const guestWas = { asked: pending !== undefined };
  try {
    await growLocked(room, ctx, live, wantedSize(room, entry.sandbox, live));
    guestWas.asked = true;
    await room.step(ctx, 'changing the container’s limits in the guest', 'guestMs', (step) =>
      apply(step, entry, live, limits),
    );
    await put(room, ctx, entry, (record) => withResources(record, after));
  } catch (error) {
    if (guestWas.asked) await restoreLimits(room, entry, live);
    else await forget(room, entry);
    throw error;
  }
}

/**
 * Brings the guest back to the limits of the record, after a change of which nobody knows whether it took
 * effect. When that does not work now, the record goes on saying so: the next change or daemon tries again.
 */
export async function restoreLimits(room: PodRoom, entry: ContainerEntry, live: LivePod): Promise<void> {
  const { id, config, changingTo } = entry.record;
  if (changingTo === undefined) return;
  if (!hasExited(entry.record)) {
    const limits = limitsBack(config.resources, changingTo);
    try {
      await room.step(live.scope, 'restoring the container’s limits', 'undoMs', (ctx) =>
        apply(ctx, entry, live, limits),
      );
    } catch (error) {
      if (!live.scope.signal.aborted)
        room.log.warn('a container may have other limits than it is said to have', {
          container: id,
          error: messageOf(error),
        });
      return;
    }
  }
  await forget(room, entry);
}

/** A guest takes no change that changes nothing. */
async function apply(ctx: Context, entry: ContainerEntry, live: LivePod, limits: OciLimits): Promise<void> {
  if (Object.keys(limits).length === 0) return;
  const guest = await live.guest(ctx);
  await guest.updateContainer(ctx, entry.record.id, Buffer.from(JSON.stringify(limits)));
}

async function forget(room: PodRoom, entry: ContainerEntry): Promise<void> {
  await room.locks.run(background(), entry.record.id, async () => {
    const { changingTo: _tried, ...record } = entry.record;
    if (record.phase !== 'removing') await room.ledger.noteContainer(entry, record);
  });
}

/** One move of the record at a time: a start that is under way ends first. */
async function put(
  room: PodRoom,
  ctx: Context,
  entry: ContainerEntry,
  next: (record: ContainerRecord) => ContainerRecord,
): Promise<void> {
  await room.locks.run(ctx, entry.record.id, async () => {
    refuseEnded(entry);
    await room.ledger.putContainer(entry, next(entry.record));
  });
}

function withResources(
  { changingTo: _done, ...record }: ContainerRecord,
  resources: LinuxResources,
): ContainerRecord {
  return { ...record, config: { ...record.config, resources } };
}

function refuseEnded({ record }: ContainerEntry): void {
  if (hasExited(record))
    throw new HerkosError(
      'FailedPrecondition',
      `the container ${record.id} has ended; its limits cannot be changed any more`,
    );
}
