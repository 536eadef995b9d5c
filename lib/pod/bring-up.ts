/**
 * From a VM that stands still to a pod that can be used: its guest answers, has its network card and its
 * names, and is as big as the pod needs. A clone that does not come up is replaced by a VM that boots; what
 * the network gave stays.
 */
import type { CancellableContext, Context } from '../base/context.js';
import { abortable, throwIfDone, withCancel } from '../base/context.js';
import { HerkosError, classOf, messageOf } from '../base/errors.js';
import type { GuestInterface, NetworkAttachment } from '../model/network.js';
import { machineIdOf } from '../model/sandbox.js';
import { LivePod } from './live-pod.js';
import { hostnameOf, hostsFile, nodeResolvConf, resolvConfOf } from './name-files.js';
import type { Guest, PlaceUser, PodVm, VmPlace } from './ports.js';
import type { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { either, together } from './steps.js';
import { networkRequestOf, retryTeardown } from './teardown.js';
import type { Timings } from './timings.js';
import { growVm, hasRoom, wantedSize } from './vm-size.js';

export interface UsablePod {
  readonly live: LivePod;
  readonly network: NetworkAttachment;
}

/** How a guest fails that does not come up; another answer is about the pod, and another guest gives it too. */
const deadGuestClasses = new Set(['Unavailable', 'DeadlineExceeded', 'Internal', 'DataLoss']);

/** What only the caller can do, because it undoes it. */
export interface BringUpParts {
  readonly acquire: (placeUser: PlaceUser) => Promise<PodVm>;
  /** Notes durably that the network may hold something for this pod from now on. */
  readonly requestNetwork: (place: VmPlace) => Promise<void>;
  /** Called when nothing but the network is missing, which has little to do with how busy the node is. */
  readonly onlyNetworkMissing: () => void;
}

/**
 * The network is attached while the VM's process starts and its guest boots. Any failure leaves no
 * connection; the VM and the network are the caller's to undo, and nothing works on them any more.
 */
export async function bringUp(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  timings: Timings,
  { acquire, requestNetwork, onlyNetworkMissing }: BringUpParts,
): Promise<UsablePod> {
  // It goes on while a VM is replaced, and is waited for before the caller undoes anything.
  const network = new NetworkOnItsWay(withCancel(ctx), onlyNetworkMissing, async (scope, place) => {
    await timings.measure('record', () => requestNetwork(place));
    return attachNetwork(room, scope, entry, timings);
  });
  try {
    const vm = await timings.measure('vm', () => acquire(network));
    try {
      return await useVm(room, ctx, entry, vm, network, timings);
    } catch (error) {
      const isDead = vm.record.source !== 'cold' && deadGuestClasses.has(classOf(error));
      if (!isDead || ctx.signal.aborted || network.hasFailed) throw error;
      const booted = await timings.measure('vm', () => replace(room, ctx, entry, error));
      return await useVm(room, ctx, entry, booted, network, timings);
    }
  } finally {
    await network.end();
  }
}

/** The network from the moment its place is known, whoever waits for it and however often. */
class NetworkOnItsWay implements PlaceUser {
  readonly attached: Promise<NetworkAttachment>;
  hasFailed = false;
  #isThere = false;
  readonly #scope: CancellableContext;
  readonly #onAwaited: () => void;
  #begin: (place: VmPlace) => void = () => undefined;
  #giveUp: (error: HerkosError) => void = () => undefined;

  constructor(
    scope: CancellableContext,
    onAwaited: () => void,
    attach: (scope: Context, place: VmPlace) => Promise<NetworkAttachment>,
  ) {
    this.#scope = scope;
    this.#onAwaited = onAwaited;
    const begun = new Promise<VmPlace>((resolve, reject) => {
      this.#begin = resolve;
      this.#giveUp = reject;
    });
    this.attached = begun.then((place) => {
      throwIfDone(scope);
      return attach(scope, place);
    });
    this.attached.then(
      () => {
        this.#isThere = true;
      },
      () => {
        this.hasFailed = true;
      },
    );
  }

  /** All else is done. */
  noteAwaited(): void {
    if (!this.#isThere) this.#onAwaited();
  }

  begin(place: VmPlace): void {
    this.#begin(place);
  }

  /** What is still being attached stops and is given back; a place that comes later is not used. */
  async end(): Promise<void> {
    this.#scope.cancel();
    this.#giveUp(new HerkosError('Aborted', 'the pod is given up'));
    await this.attached.catch(() => undefined);
  }
}

async function replace(room: PodRoom, ctx: Context, entry: SandboxEntry, why: unknown): Promise<PodVm> {
  const { id } = entry.record;
  room.log.warn('a cloned guest does not come up; the pod boots', { sandbox: id, why: messageOf(why) });
  return room.step(
    ctx,
    'starting another virtual machine',
    'vmMs',
    (step) => room.parts.vms.replaceCold(step, id, messageOf(why)),
    () => {
      retryTeardown(room, entry.record);
    },
  );
}

async function useVm(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  vm: PodVm,
  network: NetworkOnItsWay,
  timings: Timings,
): Promise<UsablePod> {
  const live = new LivePod(vm, vm.record.shape);
  // A guest that dies while it boots must not be waited for.
  const scope = either(ctx, live.scope);
  try {
    const [attached] = await together(
      scope,
      (inner) => connectAndSetUp(room, inner, entry, live, network, timings),
      (inner) => giveSize(room, inner, entry, live, timings),
    );
    return { live, network: attached };
  } catch (error) {
    await live.endLink();
    throw error;
  } finally {
    scope.cancel();
  }
}

/** The network is attached while the guest boots; the NIC follows as soon as its address is known. */
async function connectAndSetUp(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  live: LivePod,
  network: NetworkOnItsWay,
  timings: Timings,
): Promise<NetworkAttachment> {
  const [{ attached, cards }, guest] = await together(
    ctx,
    async (inner) => {
      const attached = await abortable(inner, network.attached);
      const cards = await timings.measure('nic', () => plugNics(room, inner, live.vm, attached));
      return { attached, cards };
    },
    async (inner) => {
      const guest = await timings.measure('guest', () => connect(room, inner, entry, live));
      network.noteAwaited();
      return guest;
    },
  );
  await timings.measure('setup', () => setupGuest(room, ctx, entry, guest, attached, cards));
  return attached;
}

async function connect(room: PodRoom, ctx: Context, entry: SandboxEntry, live: LivePod): Promise<Guest> {
  const { agentSocketPath, record } = live.vm;
  const [what, deadline] =
    record.source === 'cold'
      ? (['waiting for the guest to boot', 'bootMs'] as const)
      : (['waiting for the cloned guest', 'cloneMs'] as const);
  return room.step(
    ctx,
    what,
    deadline,
    async (step) => {
      // A guest that is called before it runs answers sooner: it need not wait for the call.
      const [guest] = await together(
        step,
        async (inner) => {
          const connected = await room.parts.guests.connect(
            inner,
            agentSocketPath,
            machineIdOf(entry.record),
          );
          // At once, so that whatever fails from here on finds it to close.
          live.setGuest(connected);
          return connected;
        },
        (inner) => live.vm.resume(inner),
      );
      return guest;
    },
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
  if (network.interfaces.length === 0)
    throw new HerkosError(
      'Internal',
      'the network plugins gave the pod no interface; check the CNI configuration',
    );
  return network;
}

/** @returns what the guest knows each interface's card by */
async function plugNics(
  room: PodRoom,
  ctx: Context,
  vm: PodVm,
  network: NetworkAttachment,
): Promise<GuestInterface[]> {
  const cards: GuestInterface[] = [];
  for (const one of network.interfaces) {
    const cardMac = await room.step(ctx, 'plugging the network card', 'plugMs', (step) =>
      vm.plugNic(step, one.mac),
    );
    cards.push(cardMac === one.mac ? one : { ...one, cardMac });
  }
  return cards;
}

async function setupGuest(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  guest: Guest,
  network: NetworkAttachment,
  interfaces: readonly GuestInterface[],
): Promise<void> {
  const { config } = entry.record;
  const hostname = hostnameOf(config);
  const resolvConf = resolvConfOf(config.dns) ?? (await nodeResolvConf(room.settings.resolvConfPath));
  await room.step(ctx, 'setting the guest up', 'guestMs', (step) =>
    guest.setupPod(step, {
      hostname,
      hosts: hostsFile(hostname, network.ips),
      resolvConf,
      interfaces,
      sysctls: config.sysctls,
      shmBytes: room.settings.shmBytes,
    }),
  );
}
