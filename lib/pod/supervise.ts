/**
 * Watches a ready pod: the VM's process, the link to its agent, and through that the ends of containers and the clock.
 * A lost link is made again; whatever happened meanwhile is asked for. A guest that stays away is given up.
 */
import type { Context } from '../base/context.js';
import { sleep, withCancel, withTimeout } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import { machineIdOf } from '../model/sandbox.js';
import { onGuestExit } from './container-exit.js';
import { keepClock } from './guest-clock.js';
import type { LivePod } from './live-pod.js';
import { vmEnded } from './live-pod.js';
import type { Guest, PodVm } from './ports.js';
import type { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { failSandbox } from './stop-sandbox.js';

/** The entry's live pod must be there, with or without a connection yet. */
export function supervise(room: PodRoom, entry: SandboxEntry): void {
  const { live } = entry;
  if (live === undefined) return;
  void live.vm.exited.then((exit) => {
    if (!room.isClosed && entry.record.phase === 'ready') room.parts.observer?.podVmEnded();
    failSandbox(room, entry, vmEnded(exit.lastWords).message);
  });
  void keepLink(room, entry, live).catch((error: unknown) => {
    if (!live.link.signal.aborted)
      failSandbox(room, entry, `the guest cannot be supervised: ${messageOf(error)}`);
  });
}

async function keepLink(room: PodRoom, entry: SandboxEntry, live: LivePod): Promise<void> {
  while (!live.link.signal.aborted) {
    const guest = live.currentGuest ?? (await reconnect(room, entry, live));
    if (guest === undefined) return;
    live.setGuest(guest);
    for (const container of entry.containers) container.pump?.attach(guest);
    const session = withCancel(live.link);
    void guest.lost.then(() => {
      session.cancel();
    });
    void keepClock(room, entry, session, guest);
    await watchExits(room, entry, session, guest);
    session.cancel();
    if (isOver(live.link)) return;
    // A guest that was asked to stop ends its connection first.
    if (entry.record.phase === 'ready')
      room.log.warn('the link to a guest is lost; making it again', { sandbox: entry.record.id });
    await live.disconnect();
  }
}

/** Until the session ends: the guest tells all ends again whenever the call is made again. */
async function watchExits(room: PodRoom, entry: SandboxEntry, session: Context, guest: Guest): Promise<void> {
  let delayMs = room.settings.deadlines.retryFirstMs;
  while (!session.signal.aborted) {
    try {
      for await (const exit of guest.watchExits(session)) {
        // One guest may speak of its own containers only.
        if (room.registry.containerById(exit.containerId)?.sandbox === entry) onGuestExit(room, exit);
        delayMs = room.settings.deadlines.retryFirstMs;
      }
    } catch (error) {
      if (!isOver(session))
        room.log.debug('watching a guest failed', { sandbox: entry.record.id, error: messageOf(error) });
    }
    await sleep(session, delayMs).catch(() => undefined);
    delayMs = Math.min(delayMs * 2, room.settings.deadlines.retryMaxMs);
  }
}

/** A new connection; undefined when the pod stops first, or the guest stayed away too long and was given up. */
async function reconnect(room: PodRoom, entry: SandboxEntry, live: LivePod): Promise<Guest | undefined> {
  const { agentLostMs } = room.settings.deadlines;
  const ctx = withTimeout(live.link, agentLostMs, 'reaching the guest’s agent again');
  try {
    return await reachGuest(room, ctx, entry, live.vm);
  } catch (error) {
    if (!isOver(live.link))
      failSandbox(
        room,
        entry,
        `the guest’s agent could not be reached for ${String(agentLostMs)} ms: ${messageOf(error)}`,
      );
    return undefined;
  } finally {
    ctx.cancel();
  }
}

/** A connection to a guest that runs already: tried until the context ends. @throws the last error then */
export async function reachGuest(
  room: PodRoom,
  ctx: Context,
  entry: SandboxEntry,
  vm: PodVm,
): Promise<Guest> {
  const { retryFirstMs, retryMaxMs } = room.settings.deadlines;
  for (let delayMs = retryFirstMs; ; delayMs = Math.min(delayMs * 2, retryMaxMs)) {
    try {
      return await room.parts.guests.connect(ctx, vm.agentSocketPath, machineIdOf(entry.record));
    } catch (error) {
      if (isOver(ctx)) throw error;
      room.log.debug('a guest was not reached', { vm: vm.record.id, error: messageOf(error) });
    }
    await sleep(ctx, delayMs);
  }
}

/** A function, because the answer changes while one waits. */
function isOver(ctx: Context): boolean {
  return ctx.signal.aborted;
}
