import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { writeFileAtomic } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { abortable, background, underDeadline } from '../../base/context.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import type { Exec, Launcher } from '../../base/exec.js';
import { isId, shortId } from '../../base/ids.js';
import type { Logger } from '../../base/logger.js';
import { once } from '../../base/once.js';
import { effectiveUid, endProcess, isAlive, listProcesses, readStat } from '../../base/processes.js';
import { withRollback } from '../../base/rollback.js';
import type { Accelerator, VmRecord, VmShape } from '../../model/vm.js';
import type { AcceleratorVerdict, RunningVm, VmDriver, VmMemory, VmSpec } from '../../vm/ports.js';
import { isObject } from '../../wire/qmp/message.js';
import { commandLine, nvdimmSlots, processName } from './command-line.js';
import { DeviceBook, bookSchema } from './device-book.js';
import type { DeviceEntry } from './device-book.js';
import { firstCard, firstCardCommands } from './first-card.js';
import { Hotplug } from './hotplug.js';
import { JailDevices, jailMemoryPath } from './jail.js';
import type { JailMemory, JailSpec } from './jail.js';
import { machineKey } from './machine-key.js';
import { rootBytes } from './guest-files.js';
import { KvmProver } from './kvm-proof.js';
import { launch } from './launch.js';
import { loadState } from './migration.js';
import { limitLog } from './log-file.js';
import { AcceleratorProbe } from './probe.js';
import { HypervisorProcess } from './process.js';
import { QemuVm } from './qemu-vm.js';
import { QmpSession } from './qmp-session.js';
import { RunDirectory } from './run-dir.js';
import type { VmPaths } from './run-dir.js';
import type { QemuSettings } from './settings.js';

export const qemuDriverName = 'qemu';

const killTimeoutMs = 10_000;
const adoptTimeoutMs = 15_000;
const prepareTimeoutMs = 10_000;

export interface QemuDriverOptions {
  readonly settings: QemuSettings;
  readonly exec: Exec & Launcher;
  readonly logger: Logger;
}

/** VMs as QEMU processes, one jail each. */
export class QemuDriver implements VmDriver {
  readonly name = qemuDriverName;
  readonly #settings: QemuSettings;
  readonly #logger: Logger;
  readonly #runDir: RunDirectory;
  readonly #devices: JailDevices;
  readonly #prover: KvmProver;
  readonly #probe: AcceleratorProbe;
  readonly #launcher: Launcher;
  readonly #jailReady: (ctx: Context) => Promise<unknown>;

  constructor({ settings, exec, logger }: QemuDriverOptions) {
    this.#settings = settings;
    this.#logger = logger;
    this.#launcher = exec;
    this.#runDir = new RunDirectory(settings.runDir);
    this.#devices = new JailDevices(exec, settings.runDir, settings.sharedGid);
    this.#prover = new KvmProver(settings, exec);
    this.#probe = new AcceleratorProbe({ settings, exec, logger, prover: this.#prover });
    // Once for all VMs, so no single request's end may end it; after a failure the next VM tries again.
    const ready = once(() =>
      underDeadline(background(), prepareTimeoutMs, 'preparing the jail', (step) =>
        Promise.all([this.#runDir.prepare(), this.#devices.ensure(step)]),
      ),
    );
    this.#jailReady = (ctx) => abortable(ctx, ready());
  }

  async probe(ctx: Context): Promise<AcceleratorVerdict> {
    return this.#probe.verdict(ctx);
  }

  async machineKey(
    _ctx: Context,
    shape: VmShape,
    accelerator: Accelerator,
    mergeable: boolean,
  ): Promise<string> {
    return machineKey(this.#settings, { shape, accelerator, mergeable });
  }

  async start(ctx: Context, { record, cgroup, memory, onProcess }: VmSpec): Promise<RunningVm> {
    this.#checkUid(record.uid);
    await this.#jailReady(ctx);
    const { guest } = this.#settings;
    const guestRootBytes = await rootBytes(guest);
    return withRollback(async (undo) => {
      const paths = await this.#runDir.create(record.id, record.uid);
      undo.push('remove the run directory', () => this.#runDir.removeGone(record.id));
      const args = commandLine(this.#settings, {
        processName: processName(this.#settings.instance, record.id),
        shape: record.shape,
        accelerator: record.accelerator,
        guest,
        guestRootBytes,
        paths,
        memory: insideJail(memory),
        plugged: firstCardCommands(memory, record.tap),
        mergeable: record.mergeable === true,
      });
      let noted: Promise<void> | undefined;
      const { process, session } = await launch(ctx, {
        launcher: this.#launcher,
        hostHelper: this.#settings.hostHelper,
        paths,
        jail: { ...this.#jail(record, memory), procsFiles: cgroup.procsFiles, args },
        onStarted: (started) => {
          const note = onProcess?.({ pid: started.pid, processStartTicks: started.startTicks });
          noted = note;
          const settled = Promise.allSettled([note]);
          undo.push('wait until it is noted', () => settled.then(() => undefined));
          undo.push('kill QEMU', () => this.#killBounded(started));
        },
      });
      undo.push('close the monitor', () => {
        session.destroy();
        return Promise.resolve();
      });
      if (memory.kind === 'clone')
        await loadState(ctx, session, memory.image.statePath, paths.incomingSocket);
      await this.#runDir.seal(record.id);
      await noted;
      return this.#assemble(record, paths, process, session, firstDevices(memory.kind !== 'own'));
    });
  }

  async adopt(ctx: Context, record: VmRecord): Promise<RunningVm | undefined> {
    const found = await this.#find(record);
    if (found === undefined) return undefined;
    const paths = this.#runDir.pathsOf(record.id);
    const process = new HypervisorProcess(found, paths.log);
    try {
      return await underDeadline(ctx, adoptTimeoutMs, 'taking a VM over', async (step) => {
        const session = await QmpSession.connect(step, paths.qmpSocket);
        try {
          const vm = this.#assemble(record, paths, process, session, await readBook(paths, record));
          await vm.hotplug.reconcile(step);
          // The daemon before us may have died between the start of QEMU, or taking it out of the pool, and
          // that of the guest.
          if (await isPaused(step, session)) {
            await this.#runDir.seal(record.id);
            await session.execute(step, 'cont');
          }
          return vm;
        } catch (error) {
          session.destroy();
          throw error;
        }
      });
    } catch (error) {
      if (await process.isAlive()) throw error;
      return undefined;
    }
  }

  async destroyGone(ctx: Context, record: VmRecord): Promise<void> {
    const found = await this.#find(record);
    if (found !== undefined) await endProcess(ctx, found.pid, found.startTicks);
    await this.#runDir.removeGone(record.id);
  }

  async list(): Promise<string[]> {
    const processes = await this.#processes();
    const ids = new Set([...processes.map(({ id }) => id), ...(await this.#runDir.list())]);
    if (this.#prover.provingId !== undefined) ids.delete(this.#prover.provingId);
    return [...ids];
  }

  /** Takes down what all VMs share; for tests and for uninstalling. Running VMs are not touched. */
  async removeShared(ctx: Context): Promise<void> {
    await this.#devices.removeGone(ctx);
  }

  #jail(record: VmRecord, memory: VmMemory): Omit<JailSpec, 'procsFiles' | 'args'> {
    const { sharedGid, netnsDirectory, binary } = this.#settings;
    return {
      uid: record.uid,
      groups: memory.kind === 'own' ? [sharedGid] : [sharedGid, memory.image.gid],
      netnsPath: join(netnsDirectory, record.netns),
      deviceDirectory: this.#devices.directory,
      memory: jailMemory(memory),
      // An emulated clone touches little of its own memory: one huge page is 2 MiB of it.
      hugePages: memory.kind === 'own' || record.accelerator === 'kvm',
      // What a clone's guest has freed must go back, and not out of the template that it shares.
      feignHoles: memory.kind === 'clone',
      program: binary,
    };
  }

  #assemble(
    record: VmRecord,
    paths: VmPaths,
    process: HypervisorProcess,
    session: QmpSession,
    entries: readonly DeviceEntry[],
  ): QemuVm {
    const { portCount, layerDevice, unplugTimeoutMs, memoryMibMax } = this.#settings;
    const logger = this.#logger.with({ vm: shortId(record.id) });
    const hotplug = new Hotplug({
      session,
      book: new DeviceBook({ portCount, slotCount: nvdimmSlots }, entries),
      save: (json) => writeFileAtomic(paths.devices, json),
      layerDevice,
      uid: record.uid,
      tap: record.tap,
      disksUnmap: record.template === undefined,
      boot: record.shape,
      memoryMibMax,
      // QEMU 7.2 without KVM crashes some time after a vCPU has left: listeners of its memory stay behind.
      vcpusLeave: record.accelerator === 'kvm',
      emulated: record.accelerator === 'tcg',
      unplugTimeoutMs,
      logger,
    });
    const closeLog = limitLog(paths.log);
    return new QemuVm({ process, session, hotplug, agentSocketPath: paths.agentSocket, closeLog, logger });
  }

  /** The VM's process: as recorded, or by its name when the daemon died before it could record it. */
  async #find(record: VmRecord): Promise<{ readonly pid: number; readonly startTicks: string } | undefined> {
    if (record.pid !== 0)
      return (await isAlive(record.pid, record.processStartTicks))
        ? { pid: record.pid, startTicks: record.processStartTicks }
        : undefined;
    const isIts = (uid: number): boolean => uid === 0 || record.uid < 0 || uid === record.uid;
    const named = (await this.#processes()).find(({ id, uid }) => id === record.id && isIts(uid));
    const stat = named === undefined ? undefined : await readStat(named.pid);
    if (named === undefined || stat === undefined || stat.ended) return undefined;
    return { pid: named.pid, startTicks: stat.startTicks };
  }

  /** Processes that carry a name of ours. Any user can imitate a name, but not one of our uids or root. */
  async #processes(): Promise<{ readonly id: string; readonly pid: number; readonly uid: number }[]> {
    const prefix = `guest=${processName(this.#settings.instance, '')}`;
    const found: { readonly id: string; readonly pid: number; readonly uid: number }[] = [];
    for (const { pid, args } of await listProcesses()) {
      const name = args.find((arg, at) => args[at - 1] === '-name' && arg.startsWith(prefix));
      const id = name?.slice(prefix.length).split(',')[0] ?? '';
      if (!isId(id)) continue;
      const uid = await effectiveUid(pid);
      if (uid !== undefined && (uid === 0 || this.#isOurUid(uid))) found.push({ id, pid, uid });
    }
    return found;
  }

  /** The one after the range belongs to the proof of KVM. */
  #isOurUid(uid: number): boolean {
    return uid >= this.#settings.uidFirst && uid <= this.#settings.uidFirst + this.#settings.uidCount;
  }

  #checkUid(uid: number): void {
    if (!this.#isOurUid(uid))
      throw new HerkosError('InvalidArgument', `uid ${String(uid)} is outside the range of VM users`);
  }

  async #killBounded(process: HypervisorProcess): Promise<void> {
    await underDeadline(background(), killTimeoutMs, 'killing QEMU', (ctx) => process.kill(ctx));
  }
}

/** What is a template's for good must be out of everybody's reach. */
function jailMemory(memory: VmMemory): JailMemory | undefined {
  if (memory.kind === 'own') return undefined;
  return { ...memory.image.memory, mustBeSealed: memory.kind === 'clone' };
}

/** As the process finds it. */
function insideJail(memory: VmMemory): VmMemory {
  if (memory.kind === 'own') return memory;
  const { image } = memory;
  return { ...memory, image: { ...image, memory: { ...image.memory, path: jailMemoryPath } } };
}

/** Before its first instruction, or a clone out of the pool. */
async function isPaused(ctx: Context, session: QmpSession): Promise<boolean> {
  const status = await session.execute(ctx, 'query-status');
  return isObject(status) && (status['status'] === 'prelaunch' || status['status'] === 'paused');
}

/** What is plugged when the process starts. */
function firstDevices(hasTemplate: boolean): readonly DeviceEntry[] {
  const card = firstCard(hasTemplate);
  return card === undefined ? [] : [card];
}

/** The book as the daemon before us left it; a VM without one has what it began with. */
async function readBook(paths: VmPaths, record: VmRecord): Promise<readonly DeviceEntry[]> {
  try {
    return bookSchema.parse(JSON.parse(await readFile(paths.devices, 'utf8'))).entries;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return firstDevices(record.template !== undefined);
    throw new HerkosError('DataLoss', `${paths.devices} is not readable: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
