import type { Context } from '../base/context.js';
import { abortable } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import type { ContainerExit } from '../model/container.js';
import { exitUnknown, mayRun } from '../model/container-state.js';
import { toNotReady, toStopping } from '../model/sandbox-state.js';
import { nowUnixNano } from '../model/time.js';
import { settleExit } from './container-exit.js';
import type { LivePod } from './live-pod.js';
import { stoppingError } from './live-pod.js';
import type { ContainerEntry, SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { attempt } from './steps.js';
import { retry, teardown } from './teardown.js';

/**
 * Kills the containers, powers the VM off or kills it, gives the network back. Succeeds for an unknown id
 * and when repeated; concurrent calls share the work, which goes on when a caller leaves.
 */
export async function stopSandbox(room: PodRoom, ctx: Context, id: string): Promise<void> {
  const entry = room.registry.findSandbox(id);
  if (entry === undefined) return;
  await abortable(ctx, untilRecovered(room, entry));
  await abortable(ctx, beginStop(room, entry));
}

/**
 * Before a pod is stopped after a restart: its guest is given as long to be reached as a stop gives its containers.
 * When it is not, the pod is stopped without it, also when the caller has left: nobody looks after it any more.
 */
export async function untilRecovered(room: PodRoom, entry: SandboxEntry): Promise<void> {
  await entry.adopted.opened;
  if (entry.recovered.isOpen) return;
  const sandbox = entry.record.id;
  const isInTime = await attempt(
    room.settings.deadlines.stopContainersMs,
    'reaching the guest again',
    (ctx) => abortable(ctx, entry.recovered.opened),
    (error) => {
      room.log.warn('a pod is stopped without its guest', { sandbox, error: messageOf(error) });
    },
  );
  if (isInTime) return;
  entry.live?.end(stoppingError(sandbox));
  await entry.recovered.opened;
  await beginStop(room, entry);
}

/** The same for whoever has the entry; also finishes a stop that an earlier daemon began. */
export async function beginStop(room: PodRoom, entry: SandboxEntry, failure?: string): Promise<void> {
  const { phase } = entry.record;
  if (phase === 'notready' || phase === 'removing') return;
  entry.stopping ??= stop(room, entry, failure).finally(() => {
    entry.stopping = undefined;
  });
  await entry.stopping;
}

/** The pod is broken: stop it now, and keep trying until everything of it is given back. */
export function failSandbox(room: PodRoom, entry: SandboxEntry, failure: string): void {
  if (room.isClosed || entry.record.phase !== 'ready') return;
  room.log.error('a pod failed', { sandbox: entry.record.id, failure });
  void retry(room, `stop of sandbox ${entry.record.id}`, () => beginStop(room, entry, failure));
}

const killed: ContainerExit = { code: 137, reason: 'Error', message: 'killed because its pod was stopped' };

async function stop(room: PodRoom, entry: SandboxEntry, failure: string | undefined): Promise<void> {
  const { live } = entry;
  const lost = failure === undefined ? killed : { ...exitUnknown, message: failure };
  const wasReady = entry.record.phase === 'ready';
  const noted = room.ledger.noteSandbox(entry, toStopping(entry.record, failure));
  live?.end(failure === undefined ? stoppingError(entry.record.id) : new HerkosError('Unavailable', failure));
  if (wasReady) room.events.sandbox('stopped', entry.record);
  // A VM that is gone took its containers along: say so before anything that may take time (R4).
  if (live === undefined || live.isVmGone || failure !== undefined) await endContainers(room, entry, lost);
  await noted;
  if (live !== undefined) {
    if (failure === undefined && !live.isVmGone) await stopGuest(room, entry, live);
    await endVm(room, entry, live);
    await endContainers(room, entry, lost);
  }
  await teardown(room, entry.record);
  entry.live = undefined;
  await room.ledger.noteSandbox(entry, toNotReady(entry.record));
}

/** The friendly part: containers end with their true codes and whole logs, the guest syncs. All of it may fail. */
async function stopGuest(room: PodRoom, entry: SandboxEntry, live: LivePod): Promise<void> {
  const guest = live.currentGuest;
  if (guest === undefined) return;
  const { stopContainersMs, shutdownMs } = room.settings.deadlines;
  const report = (error: unknown): void => {
    room.log.warn('a guest did not stop in order; killing its virtual machine', {
      sandbox: entry.record.id,
      error: messageOf(error),
    });
  };
  const running = [...entry.containers].filter((container) => mayRun(container.record));
  const isCalm = await attempt(
    stopContainersMs,
    'killing the containers',
    async (ctx) => {
      await Promise.all(
        running.map(async (container) => {
          await guest.signalContainer(ctx, container.record.id, sigkill, true).catch(() => undefined);
          await abortable(ctx, container.exited);
        }),
      );
    },
    report,
  );
  if (!isCalm || live.isVmGone) return;
  await attempt(
    shutdownMs,
    'shutting the guest down',
    async (ctx) => {
      // Everything has ended and is written when it answers: nothing is won by waiting until the guest's
      // kernel has powered off. The answer may be lost with the machine, which is as good.
      await Promise.race([guest.shutdown(ctx), abortable(ctx, live.vm.exited)]);
    },
    report,
  );
}

const sigkill = 9;

/** From here on nothing can be asked of the guest; requests that still wait for it end. */
async function endVm(room: PodRoom, entry: SandboxEntry, live: LivePod): Promise<void> {
  const { destroyMs } = room.settings.deadlines;
  if (!live.isVmGone)
    await attempt(
      destroyMs,
      'killing the virtual machine',
      (ctx) => live.vm.kill(ctx),
      (error) => {
        // destroyGone tries again, by other means, and its failure is the caller's to know.
        room.log.warn('a virtual machine was not killed', {
          sandbox: entry.record.id,
          error: messageOf(error),
        });
      },
    );
  await live.endLink();
  await Promise.allSettled([...entry.busy]);
}

/** Everything that has not ended yet ends now. */
async function endContainers(room: PodRoom, entry: SandboxEntry, exit: ContainerExit): Promise<void> {
  const all = [...entry.containers];
  const now = nowUnixNano();
  await Promise.all(all.map((container) => settleExit(room, container, exit, now)));
  await Promise.all(all.map((container) => closePump(container)));
}

export async function closePump(entry: ContainerEntry): Promise<void> {
  const { pump } = entry;
  entry.pump = undefined;
  await pump?.close();
}
