/**
 * The size of a pod's VM over its life: what its records ask for, never below what it booted with.
 *
 *   grow    before what needs the room is made; fails when the guest does not take it
 *   settle  whenever less may do: in the background, only as far as the guest can spare it, and a guest
 *           that keeps memory is not argued with, but asked again later.
 *           Not when a container ends, because it mostly comes again
 *
 * One change at a time for each sandbox. A creation counts from the moment its container is in the
 * registry, so that several at once add up; while limits change there is room for the old and the new.
 */
import type { CancellableContext, Context } from '../base/context.js';
import { sleep, throwIfDone } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import type { ContainerConfig, ContainerRecord } from '../model/container.js';
import { hasExited } from '../model/container-state.js';
import type { LinuxResources, PodDemand } from '../model/resources.js';
import type { VmShape } from '../model/vm.js';
import type { LivePod } from './live-pod.js';
import type { ContainerEntry, SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { blockMib, nextMib } from './spare-memory.js';
import { either } from './steps.js';

/** A guest that keeps memory for long, or fails, is asked ever more rarely, up to so many times. */
const restGrowthMax = 16;

/** What differs from the records: a request that is not written yet. */
export interface DemandChange {
  readonly pod?: { readonly resources?: LinuxResources; readonly overhead?: LinuxResources };
  readonly adding?: ContainerConfig;
  readonly changing?: { readonly container: ContainerEntry; readonly to: LinuxResources };
}

/** What a pod without containers needs. @throws ResourceExhausted when the node cannot give so much */
export function sizeAtStart(room: PodRoom, sandbox: SandboxEntry): VmShape {
  return room.parts.sizing(demandOf(sandbox, {}, (record) => record.config.resources));
}

/**
 * Never below what the VM booted with. While limits are being changed, enough for both.
 * @throws ResourceExhausted when the node cannot give so much
 */
export function wantedSize(
  room: PodRoom,
  sandbox: SandboxEntry,
  live: LivePod,
  change: DemandChange = {},
): VmShape {
  const before = room.parts.sizing(demandOf(sandbox, change, (record) => record.config.resources));
  const after = room.parts.sizing(
    demandOf(sandbox, change, (record) => record.changingTo ?? record.config.resources),
  );
  return larger(live.vm.record.shape, larger(before, after));
}

/** Containers that have ended need nothing, though they are still listed. */
function demandOf(
  sandbox: SandboxEntry,
  { pod, adding, changing }: DemandChange,
  resourcesOf: (record: ContainerRecord) => LinuxResources,
): PodDemand {
  const { resources, overhead } = pod ?? sandbox.record.config;
  const living = [...sandbox.containers].filter(({ record }) => !hasExited(record));
  const containers = living.map((entry) => ({
    name: entry.record.config.metadata.name,
    resources: changing?.container === entry ? changing.to : resourcesOf(entry.record),
  }));
  if (adding !== undefined) containers.push({ name: adding.metadata.name, resources: adding.resources });
  return {
    ...(resources === undefined ? {} : { resources }),
    ...(overhead === undefined ? {} : { overhead }),
    containers,
  };
}

/** Gives the VM what the sandbox's records ask for. @throws when the guest does not take it; call `settleVm` then */
export async function growVm(
  room: PodRoom,
  ctx: Context,
  sandbox: SandboxEntry,
  live: LivePod,
): Promise<void> {
  if (hasRoom(live, wantedSize(room, sandbox, live))) return;
  await withSizeLock(room, ctx, sandbox, live, () =>
    growLocked(room, ctx, live, wantedSize(room, sandbox, live)),
  );
}

/** Runs `body` while no one else changes the VM's size; a shrinking that is under way is put off. */
export async function withSizeLock<T>(
  room: PodRoom,
  ctx: Context,
  sandbox: SandboxEntry,
  live: LivePod,
  body: () => Promise<T>,
): Promise<T> {
  const isInterrupting = live.settling.size > 0;
  for (const settling of live.settling)
    settling.cancel(new HerkosError('Aborted', 'the pod needs the virtual machine to grow'));
  try {
    return await room.sizeLocks.run(ctx, sandbox.record.id, body);
  } finally {
    if (isInterrupting) settleVm(room, sandbox);
  }
}

/** For whoever has the lock. @throws DeadlineExceeded, ResourceExhausted when the guest does not take it */
export async function growLocked(room: PodRoom, ctx: Context, live: LivePod, wanted: VmShape): Promise<void> {
  if (hasRoom(live, wanted)) return;
  const known = live.size;
  const needed = known === undefined ? wanted : larger(known, wanted);
  // Where it is not known, the guest keeps what it has: nobody has asked it what it can spare.
  const target = known === undefined ? larger(await sizeNow(room, ctx, live), wanted) : needed;
  const taken = await resize(room, ctx, live, known, target, 'growing');
  if (fits(target, taken)) return;
  const isEnough = fits(needed, taken);
  live.size = isEnough ? needed : undefined;
  if (isEnough) return;
  throw new HerkosError(
    'ResourceExhausted',
    `the pod needs ${shown(needed)} and was given them, but its guest has taken only ${shown(taken)}`,
    { reason: 'VM_NOT_GROWN' },
  );
}

async function sizeNow(room: PodRoom, ctx: Context, live: LivePod): Promise<VmShape> {
  return room.step(ctx, 'asking for the size of the virtual machine', 'guestMs', (step) =>
    live.vm.size(step),
  );
}

/**
 * Gives back, in the background, what the records do not ask for any more; later again, when the guest
 * could not spare it, or it failed. Never fails itself.
 */
export function settleVm(room: PodRoom, sandbox: SandboxEntry): void {
  const { live } = sandbox;
  if (live === undefined || live.scope.signal.aborted || room.isClosed) return;
  live.resting?.cancel();
  const ctx = either(room.life, live.scope);
  live.settling.add(ctx);
  settleInTheEnd(room, ctx, sandbox, live)
    // Others settle it, or there is nothing to settle any more.
    .catch(() => undefined)
    .finally(() => {
      live.settling.delete(ctx);
      ctx.cancel();
    });
}

async function settleInTheEnd(
  room: PodRoom,
  ctx: CancellableContext,
  sandbox: SandboxEntry,
  live: LivePod,
): Promise<void> {
  const settle = async (isAgain: boolean): Promise<boolean> => {
    try {
      return await room.sizeLocks.run(ctx, sandbox.record.id, () =>
        settleLocked(room, ctx, sandbox, live, isAgain),
      );
    } catch (error) {
      throwIfDone(ctx);
      room.log.warn('a virtual machine has not the size that its pod needs; trying again', {
        sandbox: sandbox.record.id,
        error: messageOf(error),
      });
      return false;
    }
  };
  const { sizeAgainMs } = room.settings.deadlines;
  let restMs = sizeAgainMs;
  for (let isDone = await settle(false); !isDone; isDone = await settle(true)) {
    live.resting = ctx;
    try {
      await sleep(ctx, restMs);
      restMs = Math.min(restMs * 2, sizeAgainMs * restGrowthMax);
    } finally {
      if (live.resting === ctx) live.resting = undefined;
    }
  }
}

/** @returns false when the guest has more memory than it needs */
async function settleLocked(
  room: PodRoom,
  ctx: Context,
  sandbox: SandboxEntry,
  live: LivePod,
  isAgain: boolean,
): Promise<boolean> {
  const target = wantedSize(room, sandbox, live);
  if (!isAgain && live.size !== undefined && fits(target, live.size) && fits(live.size, target)) return true;
  const taken = await shrink(room, ctx, live, target);
  if (!fits(target, taken)) live.size = undefined;
  if (!isAgain && !(fits(taken, target) && fits(target, taken)))
    room.log.info('a guest keeps more or less than its pod needs', {
      sandbox: sandbox.record.id,
      wanted: shown(target),
      taken: shown(taken),
    });
  return !exceeds(taken, target);
}

/** Step by step, and no further than the guest can spare. @returns what it has then */
async function shrink(room: PodRoom, ctx: Context, live: LivePod, target: VmShape): Promise<VmShape> {
  for (;;) {
    const { from, now, next } = await takeBack(room, ctx, live, target);
    const taken = await resize(room, ctx, live, from, next, 'shrinking');
    const isThere = next.memoryMib <= target.memoryMib;
    if (isThere || next.memoryMib >= now.memoryMib || taken.memoryMib >= now.memoryMib) return taken;
  }
}

/** What the guest is asked for next. From now on nobody counts on what there is: who needs room waits for its turn. */
async function takeBack(
  room: PodRoom,
  ctx: Context,
  live: LivePod,
  target: VmShape,
): Promise<{ readonly from: VmShape | undefined; readonly now: VmShape; readonly next: VmShape }> {
  const from = live.size;
  live.size = undefined;
  try {
    const asked = await room.step(ctx, 'asking the guest what it can spare', 'guestMs', (step) =>
      nextSize(step, live, target),
    );
    return { from, ...asked };
  } catch (error) {
    // Nothing has been taken.
    live.size = from;
    throw error;
  }
}

async function nextSize(
  ctx: Context,
  live: LivePod,
  target: VmShape,
): Promise<{ readonly now: VmShape; readonly next: VmShape }> {
  const now = await live.vm.size(ctx);
  if (now.memoryMib <= target.memoryMib) return { now, next: target };
  const memory = await (await live.guest(ctx)).memory(ctx);
  return { now, next: { ...target, memoryMib: nextMib(now.memoryMib, target.memoryMib, memory) } };
}

/**
 * While it is under way, and when it fails, the size is not known.
 * @param from what it was last brought to, if that is known
 */
async function resize(
  room: PodRoom,
  ctx: Context,
  live: LivePod,
  from: VmShape | undefined,
  target: VmShape,
  verb: 'growing' | 'shrinking',
): Promise<VmShape> {
  const onlineBefore = (from ?? live.vm.record.shape).vcpus;
  live.size = undefined;
  const taken = await room.step(
    ctx,
    `${verb} the virtual machine to ${shown(target)}`,
    'sizeMs',
    async (step) => {
      const plugged = await live.vm.resize(step, target);
      if (target.vcpus > onlineBefore && plugged.vcpus >= target.vcpus)
        await (await live.guest(step)).onlineCpus(step, target.vcpus);
      return plugged;
    },
  );
  // A guest that keeps memory may give it back at any time, and is asked again.
  live.size = exceeds(taken, target) ? undefined : target;
  return taken;
}

export function hasRoom(live: LivePod, wanted: VmShape): boolean {
  return live.size !== undefined && fits(wanted, live.size);
}

/** By more than the odd part of a block. Processors do not count: without KVM no guest gives one back. */
function exceeds(taken: VmShape, target: VmShape): boolean {
  return taken.memoryMib >= target.memoryMib + blockMib;
}

function fits(inner: VmShape, outer: VmShape): boolean {
  return inner.vcpus <= outer.vcpus && inner.memoryMib <= outer.memoryMib;
}

function larger(one: VmShape, other: VmShape): VmShape {
  return {
    vcpus: Math.max(one.vcpus, other.vcpus),
    memoryMib: Math.max(one.memoryMib, other.memoryMib),
  };
}

function shown({ vcpus, memoryMib }: VmShape): string {
  return `${String(vcpus)} vCPUs and ${String(memoryMib)} MiB`;
}
