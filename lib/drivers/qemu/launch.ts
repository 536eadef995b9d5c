import { watch } from 'node:fs';

import type { Context } from '../../base/context.js';
import { abortable, background, sleep, throwIfDone, underDeadline, withCancel } from '../../base/context.js';
import type { Launcher } from '../../base/exec.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import { jailCommand, jailEnvironment } from './jail.js';
import type { JailSpec } from './jail.js';
import { makeLog } from './log-file.js';
import { HypervisorProcess } from './process.js';
import { QmpSession } from './qmp-session.js';
import type { VmPaths } from './run-dir.js';

export interface LaunchSpec {
  readonly launcher: Launcher;
  /** The program `herkos-host`. */
  readonly hostHelper: string;
  readonly jail: JailSpec;
  readonly paths: VmPaths;
  /** Called as soon as there is a process to kill. */
  readonly onStarted: (process: HypervisorProcess) => void;
}

export interface Launched {
  readonly process: HypervisorProcess;
  readonly session: QmpSession;
}

/** From spawn to the first answer; some tens of milliseconds on a quiet machine. */
const launchTimeoutMs = 30_000;
/** Between bind(2), which shows in the directory, and listen(2), which does not, pass microseconds. */
const listenCheckMs = 2;

/**
 * Starts QEMU in its jail and connects to its monitor.
 * @throws HerkosError `Internal` with QEMU's own words when it ends before it answers
 */
export async function launch(ctx: Context, spec: LaunchSpec): Promise<Launched> {
  return underDeadline(ctx, launchTimeoutMs, 'starting QEMU', async (step) => {
    const process = await startProcess(spec);
    if (step.signal.aborted) {
      // Whoever gave up meanwhile has undone what there was, and must hear of no process now.
      await process.kill(background());
      throwIfDone(step);
    }
    spec.onStarted(process);
    const waiting = withCancel(step);
    const died = process.exited.then(({ exitCode, signal, lastWords }) => {
      const how = signal ?? `exit code ${String(exitCode)}`;
      throw new HerkosError('Internal', `QEMU ended before it answered (${how}): ${lastWords}`, {
        reason: 'QEMU_START_FAILED',
      });
    });
    try {
      const session = await Promise.race([connectWhenThere(waiting, spec.paths), died]);
      return { process, session };
    } finally {
      waiting.cancel();
    }
  });
}

async function startProcess({ launcher, hostHelper, jail, paths }: LaunchSpec): Promise<HypervisorProcess> {
  const { program, args } = jailCommand(hostHelper, jail);
  await makeLog(paths.log, jail.uid);
  const launched = await launcher.launch(program, args, { env: jailEnvironment, log: paths.log });
  return new HypervisorProcess(launched, paths.log);
}

/** Connects as soon as the socket shows in the VM's directory. */
async function connectWhenThere(ctx: Context, paths: VmPaths): Promise<QmpSession> {
  let wake: () => void = () => undefined;
  const watcher = watch(paths.directory, { persistent: false }, () => {
    wake();
  });
  watcher.on('error', () => undefined);
  try {
    for (;;) {
      const changed = new Promise<void>((resolve) => {
        wake = resolve;
      });
      try {
        return await QmpSession.connect(ctx, paths.qmpSocket);
      } catch (error) {
        if (classOf(error) !== 'Unavailable') throw error;
        if (messageOf(error).includes('ECONNREFUSED')) await sleep(ctx, listenCheckMs);
        else await abortable(ctx, changed);
      }
    }
  } finally {
    watcher.close();
  }
}
