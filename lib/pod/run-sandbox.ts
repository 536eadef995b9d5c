import type { Context } from '../base/context.js';
import { abortable, background, throwIfDone } from '../base/context.js';
import { classOf } from '../base/errors.js';
import { newId } from '../base/ids.js';
import type { Rollback } from '../base/rollback.js';
import { withRollback } from '../base/rollback.js';
import type { SandboxConfig, SandboxRecord } from '../model/sandbox.js';
import { toReady, withNetworkRequested } from '../model/sandbox-state.js';
import { nowUnixNano } from '../model/time.js';
import { defaultDomain } from '../model/vm.js';
import { bringUp } from './bring-up.js';
import { checkSandbox } from './check-sandbox.js';
import type { LivePod } from './live-pod.js';
import type { PlaceUser, PodVm } from './ports.js';
import { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { supervise } from './supervise.js';
import { networkRequestOf, retryTeardown } from './teardown.js';
import { Timings } from './timings.js';
import { sizeAtStart } from './vm-size.js';

/**
 * Makes a pod's VM and network. The name is reserved from the first moment until the sandbox is removed or
 * undone (docs/decisions/0006). When the caller has gone before the answer, everything is undone: it could
 * not know the id. @throws AlreadyExists for a reserved name; any failure leaves nothing behind
 */
export async function runSandbox(
  room: PodRoom,
  ctx: Context,
  config: SandboxConfig,
  runtimeHandler: string,
): Promise<SandboxRecord> {
  checkSandbox(config, runtimeHandler);
  await abortable(ctx, room.swept.opened);
  const entry = new SandboxEntry({
    schemaVersion: 1,
    id: newId(),
    config,
    runtimeHandler,
    createdAt: nowUnixNano(),
    phase: 'creating',
    networkRequested: false,
    timings: [],
  });
  room.registry.addSandbox(entry);
  try {
    const live = await withRollback((undo) => build(room, ctx, entry, undo));
    entry.live = live;
    room.parts.observer?.podStarted(live.vm.record.source, entry.record.timings);
  } catch (error) {
    room.registry.removeSandbox(entry);
    room.parts.observer?.podNotStarted(classOf(error));
    throw error;
  }
  room.events.sandbox('created', entry.record);
  room.events.sandbox('started', entry.record);
  supervise(room, entry);
  return entry.record;
}

async function build(room: PodRoom, ctx: Context, entry: SandboxEntry, undo: Rollback): Promise<LivePod> {
  const { ledger, parts } = room;
  const timings = new Timings();
  undo.push('delete the record', () => ledger.deleteSandbox(entry));
  await timings.measure('record', () => ledger.putSandbox(entry, entry.record));
  throwIfDone(ctx);

  undoStep(room, entry, undo, 'destroy the virtual machine', (undoCtx) =>
    parts.vms.destroyGone(undoCtx, entry.record.id),
  );
  const turnedAtMs = performance.now();
  const { live, network } = await room.startTurns.run(ctx, async (leaveTurn) => {
    timings.add('queue', performance.now() - turnedAtMs);
    return bringUp(room, ctx, entry, timings, {
      acquire: (placeUser) => acquire(room, ctx, entry, placeUser),
      requestNetwork: async ({ netnsPath, tap }) => {
        await ledger.putSandbox(entry, withNetworkRequested(entry.record, netnsPath, tap));
        undoStep(room, entry, undo, 'give the network back', (undoCtx) =>
          parts.network.detachGone(undoCtx, networkRequestOf(entry.record)),
        );
      },
      // Plugins that hang must not hold up pods that could start.
      onlyNetworkMissing: leaveTurn,
    });
  });
  undo.push('close the guest’s connection', () => live.endLink());
  const ready = toReady(entry.record, network, timings.finish());
  await room.parts.stores.sandboxes.put(ready);
  throwIfDone(ctx);
  throwIfDone(live.scope);
  entry.record = ready;
  return live;
}

async function acquire(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  placeUser: PlaceUser,
): Promise<PodVm> {
  const { config, id } = entry.record;
  return room.step(
    ctx,
    'starting the virtual machine',
    'vmMs',
    (step) =>
      room.parts.vms.acquire(step, {
        sandboxId: id,
        shape: sizeAtStart(room, entry),
        domain: defaultDomain,
        cgroupParent: config.cgroupParent,
        placeUser,
      }),
    () => {
      retryTeardown(room, entry.record);
    },
  );
}

/** An undo with a deadline of its own; what cannot be undone now is tried again until it is. */
function undoStep(
  room: PodRoom,
  entry: SandboxEntry,
  undo: Rollback,
  name: string,
  body: (ctx: Context) => Promise<void>,
): void {
  undo.push(name, async () => {
    try {
      await room.step(background(), name, 'undoMs', body);
    } catch (error) {
      retryTeardown(room, entry.record);
      throw error;
    }
  });
}
