/** How a container's end becomes EXITED: output first, then the record, then whoever waits. */
import { background, sleep, withCancel } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import type { ContainerExit } from '../model/container.js';
import { exitOf, hasExited, toExited } from '../model/container-state.js';
import type { UnixNano } from '../model/time.js';
import { nowUnixNano } from '../model/time.js';
import { cursorPath } from './disk.js';
import type { GuestExit } from './ports.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';

/** Tells of an end at once in memory, and on disk as soon as that works. Does nothing the second time. */
export async function settleExit(
  room: PodRoom,
  entry: ContainerEntry,
  exit: ContainerExit,
  finishedAt: UnixNano,
): Promise<void> {
  if (hasExited(entry.record) || entry.record.phase === 'creating') return;
  const written = room.ledger.noteContainer(entry, toExited(entry.record, exit, finishedAt, nowUnixNano()));
  entry.markExited();
  room.events.container('stopped', entry.record);
  await written;
}

/** The guest says that a container has ended. It may say so many times, of anything: only the first counts. */
export function onGuestExit(room: PodRoom, exit: GuestExit): void {
  const entry = room.registry.containerById(exit.containerId);
  if (entry === undefined || entry.ending || hasExited(entry.record) || entry.record.phase === 'creating')
    return;
  entry.ending = true;
  void finish(room, entry, exit);
}

async function finish(room: PodRoom, entry: ContainerEntry, exit: GuestExit): Promise<void> {
  // A start that is under way finishes first: it makes the pump, and RUNNING may not come after EXITED.
  await room.locks.run(background(), entry.record.id, () => Promise.resolve());
  await drain(room, entry);
  await room.locks.run(background(), entry.record.id, () =>
    settleExit(room, entry, exitOf(exit.exitCode, exit.oomKilled), exit.finishedAt),
  );
  letPumpGo(room, entry);
}

/** An ended container's log is closed as soon as all of it is there; a cursor that is left says that it is not. */
export function letPumpGo(room: PodRoom, entry: ContainerEntry): void {
  const { pump } = entry;
  if (pump === undefined) return;
  const { id } = entry.record;
  void pump.drained
    .then(async () => {
      if (!pump.isComplete || entry.pump !== pump) return;
      entry.pump = undefined;
      await pump.close();
      await room.parts.files.removeGone(cursorPath(room.settings.stateDirectory, id));
    })
    .catch((error: unknown) => {
      room.log.warn('a finished log was not closed', { container: id, error: messageOf(error) });
    });
}

/** Waits until all output is in the log, but not for ever: something may hold the streams open, or the disk be full. */
export async function drain(room: PodRoom, entry: ContainerEntry): Promise<void> {
  if (entry.pump === undefined) return;
  const patience = withCancel(background());
  const timeUp = sleep(patience, room.settings.deadlines.drainMs).then(
    () => {
      room.log.warn('a container ended but its output did not; not waiting longer', {
        container: entry.record.id,
      });
    },
    () => undefined,
  );
  await Promise.race([entry.pump.drained, entry.exited, timeUp]);
  patience.cancel();
}
