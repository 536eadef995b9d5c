import type { Context } from '../base/context.js';
import { abortable, throwIfDone } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import { hasExited, toRunning, toStarting } from '../model/container-state.js';
import { nowUnixNano } from '../model/time.js';
import { settleExit } from './container-exit.js';
import { livePodOf } from './create-container.js';
import { cursorPath } from './disk.js';
import type { LivePod } from './live-pod.js';
import { LogPump } from './output/log-pump.js';
import type { LogWriterOptions } from './output/log-writer.js';
import { LogWriter } from './output/log-writer.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { attempt, either } from './steps.js';

/**
 * Starts a created container. A start that fails, or whose caller leaves, ends the container: EXITED with
 * `StartError` and 128. @throws NotFound, FailedPrecondition when it was started before or its pod does not run
 */
export async function startContainer(room: PodRoom, ctx: Context, id: string): Promise<void> {
  const entry = room.registry.container(id);
  await abortable(ctx, entry.sandbox.recovered.opened);
  const live = livePodOf(entry.sandbox);
  const scope = either(ctx, live.scope);
  const work = room.locks.run(scope, entry.record.id, () => start(room, scope, entry, live));
  entry.sandbox.busy.add(work);
  try {
    await work;
  } finally {
    entry.sandbox.busy.delete(work);
    scope.cancel();
  }
}

async function start(room: PodRoom, ctx: Context, entry: ContainerEntry, live: LivePod): Promise<void> {
  const { id, phase } = entry.record;
  if (phase !== 'created')
    throw new HerkosError(
      'FailedPrecondition',
      `the container ${id} is ${phase}; only a created one can be started, and only once`,
    );
  throwIfDone(ctx);
  await room.ledger.putContainer(entry, toStarting(entry.record));
  try {
    throwIfDone(ctx);
    const pump = await openPump(room, entry, 'create');
    const guest = await live.guest(ctx);
    pump.attach(guest);
    await room.step(ctx, 'starting the container', 'guestMs', (step) => guest.startContainer(step, id));
    await room.ledger.putContainer(entry, toRunning(entry.record, nowUnixNano()));
  } catch (error) {
    await giveUp(room, entry, live, error);
    throw error;
  }
  room.events.container('started', entry.record);
}

/** It may run or not: whatever there is of it is killed, and never reported as running. */
async function giveUp(room: PodRoom, entry: ContainerEntry, live: LivePod, error: unknown): Promise<void> {
  const guest = live.currentGuest;
  if (guest !== undefined && !live.isVmGone && !hasExited(entry.record))
    await attempt(
      room.settings.deadlines.killMs,
      'killing a container that did not start',
      (ctx) => guest.signalContainer(ctx, entry.record.id, sigkill, true),
      () => undefined,
    );
  const exit = { code: startErrorCode, reason: 'StartError', message: messageOf(error) };
  await settleExit(room, entry, exit, nowUnixNano());
}

const sigkill = 9;
const startErrorCode = 128;

/** The container's output from now on; `recover` finds out how far an earlier daemon got. */
export async function openPump(
  room: PodRoom,
  entry: ContainerEntry,
  how: 'create' | 'recover',
): Promise<LogPump> {
  const { id, logPath, config } = entry.record;
  const options: LogWriterOptions = {
    files: room.parts.files,
    logPath,
    cursorPath: cursorPath(room.settings.stateDirectory, id),
    log: room.log,
  };
  const writer = await (how === 'create' ? LogWriter.create(options) : LogWriter.recover(options));
  const pump = new LogPump({ containerId: id, writer, tty: config.tty, log: room.log });
  entry.pump = pump;
  return pump;
}
