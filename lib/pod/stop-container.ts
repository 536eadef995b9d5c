import type { Context } from '../base/context.js';
import { abortable, background } from '../base/context.js';
import type { ContainerExit } from '../model/container.js';
import { nowUnixNano } from '../model/time.js';
import { settleExit } from './container-exit.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { attempt } from './steps.js';
import { StopAttempt } from './stop-attempt.js';

/**
 * Ends a container: its stop signal, then SIGKILL for all its processes after the timeout (0: at once). When
 * it returns the container is EXITED and its log complete. Succeeds for an unknown or ended one. The work
 * goes on when the caller leaves.
 */
export async function stopContainer(
  room: PodRoom,
  ctx: Context,
  id: string,
  timeoutSeconds: number,
): Promise<void> {
  const entry = room.registry.findContainer(id);
  if (entry === undefined) return;
  await abortable(ctx, entry.sandbox.recovered.opened);
  await abortable(ctx, endContainer(room, entry, Math.max(0, timeoutSeconds) * 1000));
}

/** The same for whoever has the entry. */
export async function endContainer(room: PodRoom, entry: ContainerEntry, patienceMs: number): Promise<void> {
  // A start that is under way is let through first: what it makes is what has to be stopped.
  await room.locks.run(background(), entry.record.id, async () => {
    if (entry.record.phase === 'created') await endUnstarted(room, entry);
  });
  if (entry.record.phase !== 'starting' && entry.record.phase !== 'running') return;
  if (entry.stop === undefined) {
    entry.stop = new StopAttempt(room, entry, patienceMs);
    const clear = (): void => {
      entry.stop = undefined;
    };
    void entry.stop.done.then(clear, clear);
  } else entry.stop.shorten(patienceMs);
  await entry.stop.done;
}

const neverStarted: ContainerExit = { code: 137, reason: 'Error', message: 'stopped before it was started' };

/** Its process waits in the guest for the start that will not come. */
async function endUnstarted(room: PodRoom, entry: ContainerEntry): Promise<void> {
  const guest = entry.sandbox.live?.currentGuest;
  if (guest !== undefined)
    await attempt(
      room.settings.deadlines.killMs,
      'killing a created container',
      (ctx) => guest.signalContainer(ctx, entry.record.id, sigkill, true),
      // RemoveContainer will have to get rid of it in any case.
      () => undefined,
    );
  await settleExit(room, entry, neverStarted, nowUnixNano());
}

const sigkill = 9;
