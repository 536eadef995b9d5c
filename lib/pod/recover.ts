/**
 * After a restart: the records are read first, so that lists can be answered at once; then each sandbox is
 * looked after, many at a time. What a request needs to know of a sandbox it waits for (`recovered`).
 */
import { abortable, background } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import { Semaphore } from '../base/semaphore.js';
import { exitUnknown, hasExited } from '../model/container-state.js';
import type { SandboxRecord } from '../model/sandbox.js';
import { nowUnixNano } from '../model/time.js';
import { cleanContainer } from './clean-container.js';
import { settleExit } from './container-exit.js';
import { cursorPath, diskPath, makeDirectories, removeDiskGone, sweepFiles } from './disk.js';
import { LivePod } from './live-pod.js';
import { recoverContainer } from './recover-container.js';
import { ContainerEntry, SandboxEntry } from './registry.js';
import { beginRemove } from './remove-container.js';
import { beginRemoveSandbox } from './remove-sandbox.js';
import type { PodRoom } from './room.js';
import { attempt, either } from './steps.js';
import { beginStop, failSandbox } from './stop-sandbox.js';
import { reachGuest, supervise } from './supervise.js';
import { orRetry, retry, teardown } from './teardown.js';
import { settleVm } from './vm-size.js';

/** Virtual machines taken over at a time, or containers that hold their images again. */
const recoverConcurrency = 16;

/**
 * Reads all records into memory and holds the images of all containers again, so that the image room may
 * collect its garbage after it. @throws when the state directory cannot be used
 */
export async function load(room: PodRoom): Promise<void> {
  const { parts, settings, registry } = room;
  await makeDirectories(settings.stateDirectory);
  const [sandboxes, containers] = await Promise.all([
    parts.stores.sandboxes.loadAll(),
    parts.stores.containers.loadAll(),
  ]);
  const byId = new Map(sandboxes.map((record) => [record.id, new SandboxEntry(record, true)]));
  for (const entry of byId.values()) registry.restoreSandbox(entry);
  const limit = new Semaphore(recoverConcurrency);
  await Promise.all(
    containers.map(async (record) => {
      const sandbox = byId.get(record.sandboxId);
      if (sandbox === undefined) {
        await limit.run(background(), () => removeOrphan(room, record.id));
        return;
      }
      registry.restoreContainer(new ContainerEntry(record, sandbox));
      if (record.phase === 'creating' || record.phase === 'removing') return;
      await limit.run(background(), () => holdAgain(room, record.imageId, record.id));
    }),
  );
}

/** Resolves when every sandbox has been looked after. Call it once, after `load`. */
export async function recover(room: PodRoom): Promise<void> {
  const limit = new Semaphore(recoverConcurrency);
  const swept = sweep(room).finally(() => {
    room.swept.open();
  });
  // What is new since `load` is nothing that an earlier daemon left.
  const restored = room.registry.allSandboxes().filter((entry) => !entry.recovered.isOpen);
  await Promise.all(restored.map((entry) => lookAfter(room, entry, limit)));
  logTakenOver(room, restored);
  await swept;
}

/** For whoever reads the log after a restart: what was not taken over had ended, or is stopped. */
function logTakenOver(room: PodRoom, restored: readonly SandboxEntry[]): void {
  if (restored.length === 0 || room.isClosed) return;
  const ready = restored.filter(({ record }) => record.phase === 'ready');
  const living = ready
    .flatMap(({ containers }) => [...containers])
    .filter(({ record }) => record.phase === 'created' || record.phase === 'running');
  room.log.info('the pods of the earlier daemon were looked after', {
    podsFound: restored.length,
    podsTakenOver: ready.length,
    containersTakenOver: living.length,
  });
}

async function lookAfter(room: PodRoom, entry: SandboxEntry, limit: Semaphore): Promise<void> {
  try {
    if (entry.record.phase === 'ready') await limit.run(background(), () => adopt(room, entry));
    // The next one's turn: guests and stops may hang, and must hold up no other pod.
    entry.adopted.open();
    await recoverSandbox(room, entry);
  } catch (error) {
    room.log.error('a sandbox could not be recovered', {
      sandbox: entry.record.id,
      error: messageOf(error),
    });
  } finally {
    entry.recovered.open();
  }
}

/** Its sandbox is not known, so nothing of it can run: the VM is swept. */
async function removeOrphan(room: PodRoom, id: string): Promise<void> {
  const { parts, settings } = room;
  room.log.warn('a container without a sandbox is removed', { container: id });
  try {
    await parts.images.releaseGone(id);
    await removeDiskGone(diskPath(settings.stateDirectory, id));
    await parts.files.removeGone(cursorPath(settings.stateDirectory, id));
    await parts.stores.containers.delete(id);
  } catch (error) {
    room.log.error('it could not be removed', { container: id, error: messageOf(error) });
  }
}

async function holdAgain(room: PodRoom, imageId: string, owner: string): Promise<void> {
  try {
    await room.parts.images.hold(imageId, owner);
  } catch (error) {
    // The VM has the files open; only a new container would miss them.
    room.log.warn('the image of a container is gone', { container: owner, error: messageOf(error) });
  }
}

/** What no record explains: VMs, namespaces, addresses, files. New pods wait for it, but not for what hangs. */
async function sweep(room: PodRoom): Promise<void> {
  const { parts, registry, settings } = room;
  const sandboxes = new Set(
    registry.allSandboxes().flatMap((entry) => (mayHaveVm(entry.record) ? [entry.record.id] : [])),
  );
  // Addresses first: plugins take their rules back more completely while the namespace is there.
  const machines = async (): Promise<void> => {
    await sweepKind(room, 'addresses', async () => {
      await room.step(background(), 'sweeping addresses', 'sweepMs', (ctx) =>
        parts.network.collectGarbage(ctx, sandboxes),
      );
      return [];
    });
    const swept = sweepKind(room, 'virtual machines', () => sweepMachines(room, sandboxes));
    await attempt(
      settings.deadlines.sweepMs,
      'sweeping virtual machines',
      (ctx) => abortable(ctx, swept),
      (error) => {
        room.log.warn('pods may start before all leftovers are removed', { error: messageOf(error) });
      },
    );
  };
  const files = (): Promise<string[]> =>
    sweepFiles(settings.stateDirectory, (id) => registry.containerById(id) !== undefined);
  await Promise.all([machines(), sweepKind(room, 'files', files)]);
}

async function sweepKind(room: PodRoom, what: string, body: () => Promise<readonly string[]>): Promise<void> {
  try {
    const found = await body();
    if (found.length > 0) room.log.warn('leftovers were removed', { what, found: found.join(', ') });
  } catch (error) {
    room.log.error('leftovers could not be removed', { what, error: messageOf(error) });
  }
}

/** What cannot be removed now is tried again in the background until it can. */
async function sweepMachines(room: PodRoom, sandboxes: ReadonlySet<string>): Promise<readonly string[]> {
  const { removed, left } = await room.parts.vms.sweep(room.life, sandboxes);
  for (const { what, remove } of left) void retry(room, `removal of ${what}`, () => remove(room.life));
  return removed;
}

function mayHaveVm(record: SandboxRecord): boolean {
  return record.phase === 'creating' || record.phase === 'ready' || record.phase === 'stopping';
}

async function recoverSandbox(room: PodRoom, entry: SandboxEntry): Promise<void> {
  switch (entry.record.phase) {
    case 'creating':
      await orRetry(room, `undoing sandbox ${entry.record.id}`, () => undoSandbox(room, entry));
      return;
    case 'ready':
      await recoverReady(room, entry);
      return;
    case 'stopping':
      await orRetry(room, `stop of sandbox ${entry.record.id}`, () => beginStop(room, entry));
      await settleContainers(room, entry);
      return;
    case 'notready':
      await settleContainers(room, entry);
      return;
    case 'removing':
      // It is stopped already: nobody would tell of an end that the earlier daemon could not write down.
      await settleContainers(room, entry);
      await orRetry(room, `removal of sandbox ${entry.record.id}`, () => beginRemoveSandbox(room, entry));
      return;
  }
}

/** Nobody knows its id: the caller of the earlier daemon got no answer, and will ask anew. */
async function undoSandbox(room: PodRoom, entry: SandboxEntry): Promise<void> {
  await teardown(room, entry.record);
  await room.ledger.deleteSandbox(entry);
  room.registry.removeSandbox(entry);
}

async function recoverReady(room: PodRoom, entry: SandboxEntry): Promise<void> {
  const { live } = entry;
  if (live === undefined) {
    failSandbox(room, entry, 'the virtual machine ended while the daemon was not running');
    await entry.stopping?.catch(() => undefined);
    await settleContainers(room, entry);
    return;
  }
  const ended = either(room.life, live.scope);
  try {
    const guest = await room.step(
      ended,
      'reaching the guest again',
      'agentLostMs',
      (ctx) => reachGuest(room, ctx, entry, live.vm),
      (late) => void late.close(),
    );
    live.setGuest(guest);
    const states = await room.step(ended, 'listing containers', 'guestMs', (ctx) =>
      guest.listContainers(ctx),
    );
    const byId = new Map(states.map((state) => [state.containerId, state]));
    await Promise.all(
      [...entry.containers].map((one) => recoverContainer(room, one, byId.get(one.record.id))),
    );
    supervise(room, entry);
    // The earlier daemon may have ended between a change of size and what it was for.
    settleVm(room, entry);
  } catch (error) {
    if (room.isClosed) return;
    // Else somebody who stops the pod has ended this, and does the rest.
    if (!live.scope.signal.aborted || live.isVmGone)
      failSandbox(room, entry, `the guest could not be taken over after a restart: ${messageOf(error)}`);
    await entry.stopping?.catch(() => undefined);
  } finally {
    ended.cancel();
  }
}

/** Without a live pod after it the VM is gone, or out of reach. */
async function adopt(room: PodRoom, entry: SandboxEntry): Promise<void> {
  try {
    const vm = await room.step(background(), 'taking over the virtual machine', 'plugMs', (ctx) =>
      room.parts.vms.adopt(ctx, entry.record.id),
    );
    if (vm !== undefined) entry.live = new LivePod(vm, undefined);
  } catch (error) {
    room.log.error('a virtual machine cannot be taken over', {
      sandbox: entry.record.id,
      error: messageOf(error),
    });
  }
}

/** The pod does not run: half-made containers are undone, removals finished, and nothing is running. */
async function settleContainers(room: PodRoom, entry: SandboxEntry): Promise<void> {
  await Promise.all(
    [...entry.containers].map(async (container) => {
      const { id, phase } = container.record;
      if (phase === 'creating')
        await orRetry(room, `undoing container ${id}`, () => cleanContainer(room, container));
      else if (phase === 'removing')
        await orRetry(room, `removal of container ${id}`, () => beginRemove(room, container));
      else if (!hasExited(container.record)) await settleExit(room, container, exitUnknown, nowUnixNano());
    }),
  );
}
