import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { watch } from 'node:fs';

import type { Context } from '../../base/context.js';
import { abortable, background, sleep, underDeadline, withCancel } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import { jailCommand, jailEnvironment } from './jail.js';
import type { JailSpec } from './jail.js';
import { openLog } from './log-file.js';
import { readStat } from '../../base/processes.js';
import { HypervisorProcess } from './process.js';
import { QmpSession } from './qmp-session.js';
import type { VmPaths } from './run-dir.js';

export interface LaunchSpec {
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
    spec.onStarted(process);
    // Whoever gave up meanwhile has undone what there was, and knew of no process.
    if (step.signal.aborted) await process.kill(background());
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

async function startProcess({ hostHelper, jail, paths }: LaunchSpec): Promise<HypervisorProcess> {
  const { program, args } = jailCommand(hostHelper, jail);
  const log = await openLog(paths.log, jail.uid);
  try {
    // A session of its own: a signal to the daemon's group must not reach VMs.
    const child = spawn(program, args, {
      detached: true,
      cwd: '/',
      env: jailEnvironment,
      stdio: ['ignore', log.fd, log.fd],
    });
    const pid = await spawned(child, program);
    const stat = await readStat(pid);
    // The child is not reaped before its exit event, so its entry is there even if it has ended.
    return new HypervisorProcess(pid, stat?.startTicks ?? '0', paths.log, child);
  } finally {
    await log.close();
  }
}

async function spawned(child: ChildProcess, program: string): Promise<number> {
  if (child.pid !== undefined) return child.pid;
  const error = await new Promise<Error>((resolve) => {
    child.once('error', resolve);
  });
  throw new HerkosError('FailedPrecondition', `cannot run ${program}: ${error.message}; is it installed?`);
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
