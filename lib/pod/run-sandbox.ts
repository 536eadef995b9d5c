import type { Context } from '../base/context.js';
import { abortable, background, throwIfDone } from '../base/context.js';
import { HerkosError } from '../base/errors.js';
import { newId } from '../base/ids.js';
import type { Rollback } from '../base/rollback.js';
import { withRollback } from '../base/rollback.js';
import type { NetworkAttachment } from '../model/network.js';
import type { PhaseTiming, SandboxConfig, SandboxRecord } from '../model/sandbox.js';
import { machineIdOf } from '../model/sandbox.js';
import { defaultDomain } from '../model/vm.js';
import { toReady, withNetworkRequested } from '../model/sandbox-state.js';
import { nowUnixNano } from '../model/time.js';
import { checkSandbox } from './check-sandbox.js';
import { LivePod } from './live-pod.js';
import { hostnameOf, hostsFile, nodeResolvConf, resolvConfOf } from './name-files.js';
import type { Guest, PodVm } from './ports.js';
import { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { either, together } from './steps.js';
import { supervise } from './supervise.js';
import { networkRequestOf, retryTeardown } from './teardown.js';
import { growVm, hasRoom, sizeAtStart, wantedSize } from './vm-size.js';

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
  await abortable(ctx, room.swept);
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
  } catch (error) {
    room.registry.removeSandbox(entry);
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
  const vm = await timings.measure('vm', () => acquire(room, ctx, entry));
  const live = new LivePod(vm, vm.record.shape);
  undo.push('close the guest’s connection', () => live.endLink());
  // A guest that dies while it boots must not be waited for.
  const scope = either(ctx, live.scope);
  try {
    await timings.measure('record', () =>
      ledger.putSandbox(entry, withNetworkRequested(entry.record, vm.netnsPath, vm.tap)),
    );
    undoStep(room, entry, undo, 'give the network back', (undoCtx) =>
      parts.network.detachGone(undoCtx, networkRequestOf(entry.record)),
    );
    const network = await connectAndAttach(room, scope, entry, live, timings);
    const ready = toReady(entry.record, network, timings.finish());
    await room.parts.stores.sandboxes.put(ready);
    throwIfDone(scope);
    entry.record = ready;
    return live;
  } finally {
    scope.cancel();
  }
}

/**
 * The network is attached while the guest boots; the NIC follows as soon as its address is known. A VM
 * that is too small grows while the guest is set up.
 */
async function connectAndAttach(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  live: LivePod,
  timings: Timings,
): Promise<NetworkAttachment> {
  const [network] = await together(
    ctx,
    async (inner) => {
      const [attached, guest] = await together(
        inner,
        async (one) => attachNetwork(room, one, entry, live.vm, timings),
        async (one) => timings.measure('guest', () => connect(room, one, entry, live)),
      );
      await timings.measure('setup', () => setupGuest(room, inner, entry, guest, attached));
      return attached;
    },
    async (inner) => giveSize(room, inner, entry, live, timings),
  );
  return network;
}

async function connect(room: PodRoom, ctx: Context, entry: SandboxEntry, live: LivePod): Promise<Guest> {
  return room.step(
    ctx,
    'waiting for the guest to boot',
    'bootMs',
    (step) =>
      room.parts.guests
        .connect(step, live.vm.agentSocketPath, machineIdOf(entry.record))
        .then((connected) => {
          // At once, so that whatever fails from here on finds it to close.
          live.setGuest(connected);
          return connected;
        }),
    (late) => void late.close(),
  );
}

/** Most pods fit the machine that was booted; for them this is nothing. */
async function giveSize(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  live: LivePod,
  timings: Timings,
): Promise<void> {
  const wanted = wantedSize(room, entry, live);
  if (hasRoom(live, wanted)) return;
  // Only a guest that answers can take it.
  await live.guest(ctx);
  await timings.measure('size', () => growVm(room, ctx, entry, live));
}

async function attachNetwork(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  vm: PodVm,
  timings: Timings,
): Promise<NetworkAttachment> {
  const network = await timings.measure('network', () =>
    room.step(
      ctx,
      'attaching the network',
      'networkMs',
      (step) => room.parts.network.attach(step, networkRequestOf(entry.record)),
      () => {
        retryTeardown(room, entry.record);
      },
    ),
  );
  const macs = network.interfaces.map((nic) => nic.mac);
  if (macs.length === 0)
    throw new HerkosError(
      'Internal',
      'the network plugins gave the pod no interface; check the CNI configuration',
    );
  await timings.measure('nic', async () => {
    for (const mac of macs)
      await room.step(ctx, 'plugging the network card', 'plugMs', (step) => vm.plugNic(step, mac));
  });
  return network;
}

async function setupGuest(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  guest: Guest,
  network: NetworkAttachment,
): Promise<void> {
  const { config } = entry.record;
  const hostname = hostnameOf(config);
  const resolvConf = resolvConfOf(config.dns) ?? (await nodeResolvConf(room.settings.resolvConfPath));
  await room.step(ctx, 'setting the guest up', 'guestMs', (step) =>
    guest.setupPod(step, {
      hostname,
      hosts: hostsFile(hostname, network.ips),
      resolvConf,
      interfaces: network.interfaces,
      sysctls: config.sysctls,
      shmBytes: room.settings.shmBytes,
    }),
  );
}

async function acquire(room: PodRoom, ctx: Context, entry: SandboxEntry): Promise<PodVm> {
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

/** Milliseconds of each phase, in the order in which they began. */
class Timings {
  readonly #startMs = performance.now();
  readonly #ms = new Map<string, number>();

  async measure<T>(phase: string, body: () => Promise<T>): Promise<T> {
    const startMs = performance.now();
    const before = this.#ms.get(phase) ?? 0;
    this.#ms.set(phase, before);
    try {
      return await body();
    } finally {
      this.#ms.set(phase, before + performance.now() - startMs);
    }
  }

  finish(): PhaseTiming[] {
    this.#ms.set('total', performance.now() - this.#startMs);
    return [...this.#ms].map(([phase, ms]) => ({ phase, ms: Math.round(ms * 100) / 100 }));
  }
}
