/** What became of one container of a pod that is still alive, by its record and by what the guest says. */
import { messageOf } from '../base/errors.js';
import { exitUnknown, toCreated, toRunning } from '../model/container-state.js';
import { nowUnixNano } from '../model/time.js';
import { cleanContainer } from './clean-container.js';
import { letPumpGo, onGuestExit, settleExit } from './container-exit.js';
import { cursorPath } from './disk.js';
import type { GuestContainerState } from './ports.js';
import type { ContainerEntry } from './registry.js';
import { beginRemove } from './remove-container.js';
import type { PodRoom } from './room.js';
import { openPump } from './start-container.js';
import { orRetry, retry } from './teardown.js';
import { restoreLimits } from './update-container.js';

/** @param state undefined: the guest does not know it */
export async function recoverContainer(
  room: PodRoom,
  entry: ContainerEntry,
  state: GuestContainerState | undefined,
): Promise<void> {
  const { id, phase } = entry.record;
  switch (phase) {
    case 'creating':
      await orRetry(room, `undoing container ${id}`, () => cleanContainer(room, entry));
      return;
    case 'created':
    case 'starting':
    case 'running':
      await recoverAlive(room, entry, state);
      return;
    case 'exited':
      await finishLog(room, entry);
      return;
    case 'removing':
      await orRetry(room, `removal of container ${id}`, () => beginRemove(room, entry));
      return;
  }
}

async function recoverAlive(
  room: PodRoom,
  entry: ContainerEntry,
  state: GuestContainerState | undefined,
): Promise<void> {
  const { phase } = entry.record;
  if (state === undefined) {
    const exit = { ...exitUnknown, message: 'the guest does not know the container any more' };
    await settleExit(room, entry, exit, nowUnixNano());
    return;
  }
  if (phase === 'starting' && state.phase === 'created') {
    // The earlier daemon ended before it asked the guest; whoever asked has got no answer and may ask again.
    await room.ledger.noteContainer(entry, toCreated(entry.record));
    await restore(room, entry);
    return;
  }
  if (phase !== 'created') {
    // When it started is not known; before its end, if it has ended.
    const startedAt = state.exit === undefined ? nowUnixNano() : entry.record.createdAt;
    if (phase === 'starting') await room.ledger.noteContainer(entry, toRunning(entry.record, startedAt));
    await pumpAgain(room, entry);
  }
  if (state.phase === 'exited' && state.exit !== undefined) onGuestExit(room, state.exit);
  else await restore(room, entry);
}

/** Whoever asked the earlier daemon for other limits has got no answer: the former ones hold. */
async function restore(room: PodRoom, entry: ContainerEntry): Promise<void> {
  const { live } = entry.sandbox;
  if (live !== undefined) await restoreLimits(room, entry, live);
}

/** A log that cannot be opened now must not cost the pod its life: it is tried until it can. */
async function pumpAgain(room: PodRoom, entry: ContainerEntry): Promise<void> {
  try {
    await openPump(room, entry, 'recover');
  } catch (error) {
    room.log.error('a container’s log cannot be continued yet', {
      container: entry.record.id,
      error: messageOf(error),
    });
    void retry(room, `log of container ${entry.record.id}`, async () => {
      if (room.registry.containerById(entry.record.id) !== entry || entry.pump !== undefined) return;
      const pump = await openPump(room, entry, 'recover');
      const guest = entry.sandbox.live?.currentGuest;
      if (guest !== undefined) pump.attach(guest);
    });
  }
}

/** The cursor is removed when a log is complete; one that is there means that output was still to come. */
async function finishLog(room: PodRoom, entry: ContainerEntry): Promise<void> {
  const path = cursorPath(room.settings.stateDirectory, entry.record.id);
  if ((await room.parts.files.readCursor(path).catch(() => undefined)) === undefined) return;
  await pumpAgain(room, entry);
  letPumpGo(room, entry);
}
