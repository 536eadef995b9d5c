/**
 * QEMU started by hand: the floor below a pod's start. The same program, machine, kernel and images as a
 * pod's VM, and nothing around them: no jail, no network, no record.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { join, resolve } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { sleep } from '../../lib/base/context.js';
import { classOf } from '../../lib/base/errors.js';
import { AgentConnector } from '../../lib/drivers/guest/connector.js';
import { commandLine } from '../../lib/drivers/qemu/command-line.js';
import { loadGuestFiles } from '../../lib/drivers/qemu/guest-files.js';
import { QmpSession } from '../../lib/drivers/qemu/qmp-session.js';
import type { GuestFiles } from '../../lib/drivers/qemu/settings.js';
import { qemuDefaults } from '../../lib/drivers/qemu/settings.js';
import type { Accelerator, VmShape } from '../../lib/model/vm.js';
import type { Guest } from '../../lib/pod/ports.js';
import { endWithUs } from '../tools/end-with-us.js';
import { testAccelerator } from '../tools/herkosd-process.js';
import { testMachineId } from '../tools/machine-id.js';

const socketPollMs = 1;
const hostMemoryMib = Math.floor(totalmem() / 2 ** 20);
const guestDirectory = resolve(import.meta.dirname, '../../../guest/out');

/** What every raw machine of one measurement has in common. */
export interface RawMachine {
  readonly shape: VmShape;
  readonly guest: GuestFiles;
  readonly guestRootBytes: number;
}

/** Where the guest's memory is: private and empty, the template being written, or a private copy of it. */
export type RawMemory =
  { readonly kind: 'anonymous' } | { readonly kind: 'template' | 'clone'; readonly path: string };

export async function rawMachine(shape: VmShape): Promise<RawMachine> {
  const guest = await loadGuestFiles(guestDirectory);
  return { shape, guest, guestRootBytes: guest.root === undefined ? 0 : (await stat(guest.root)).size };
}

export class RawVm {
  readonly startedAtMs: number;
  readonly #directory: string;
  readonly #child: ChildProcess;
  #guest: Guest | undefined;

  private constructor(directory: string, child: ChildProcess, startedAtMs: number) {
    this.#directory = directory;
    this.#child = child;
    this.startedAtMs = startedAtMs;
  }

  /** Starts the process; the guest does not run yet. */
  static async spawn(machine: RawMachine, memory: RawMemory): Promise<RawVm> {
    const directory = await mkdtemp('/tmp/herkos-raw-');
    const args = rawArguments(machine, memory, directory);
    const startedAtMs = performance.now();
    const child = spawn(qemuDefaults.binary, args, { stdio: 'ignore' });
    endWithUs(child);
    return new RawVm(directory, child, startedAtMs);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** A free name in the machine's own directory. */
  path(name: string): string {
    return join(this.#directory, name);
  }

  /** The monitor, as soon as QEMU listens; it makes the socket's name before, and gives no sign of either. */
  async monitor(ctx: Context): Promise<QmpSession> {
    for (;;) {
      if (this.#child.exitCode !== null)
        throw new Error('QEMU ended by itself; see its arguments in raw-vm.ts');
      try {
        return await QmpSession.connect(ctx, this.path('qmp'));
      } catch (error) {
        if (classOf(error) !== 'Unavailable') throw error;
      }
      await sleep(ctx, socketPollMs);
    }
  }

  /** Waits for the agent's first answer. @returns milliseconds since the process was started */
  async greeted(ctx: Context): Promise<number> {
    this.#guest = await new AgentConnector().connect(ctx, this.path('agent'), testMachineId);
    return performance.now() - this.startedAtMs;
  }

  async leaveAgent(): Promise<void> {
    await this.#guest?.close();
    this.#guest = undefined;
  }

  /** Ends the process, whatever it does. */
  async end(): Promise<void> {
    await this.leaveAgent();
    this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit');
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Milliseconds from starting QEMU to the agent's first answer, without any template. */
export async function rawBoot(ctx: Context, machine: RawMachine): Promise<number> {
  const vm = await RawVm.spawn(machine, { kind: 'anonymous' });
  try {
    await letRun(ctx, vm);
    return await vm.greeted(ctx);
  } finally {
    await vm.end();
  }
}

export async function letRun(ctx: Context, vm: RawVm): Promise<void> {
  const monitor = await vm.monitor(ctx);
  await monitor.execute(ctx, 'cont');
  monitor.destroy();
}

/** The product's own arguments, but for where the memory is. */
function rawArguments(machine: RawMachine, memory: RawMemory, directory: string): string[] {
  const paths = {
    directory,
    qmpSocket: join(directory, 'qmp'),
    agentSocket: join(directory, 'agent'),
    incomingSocket: join(directory, 'incoming'),
    log: join(directory, 'log'),
    devices: join(directory, 'devices.json'),
  };
  const accelerator: Accelerator = testAccelerator;
  const spec = {
    ...machine,
    processName: 'herkos-bench-raw',
    accelerator,
    paths,
    memory: { kind: 'own' } as const,
  };
  const settings = { ...qemuDefaults, vcpusMax: availableParallelism(), memoryMibMax: hostMemoryMib };
  const args = commandLine(settings, spec);
  if (memory.kind === 'anonymous') return args;
  const at = args.findIndex((word) => /^memory-backend-ram,.*\bid=ram,/.test(word));
  if (at < 0) throw new Error('the command line has no memory object named ram');
  const file = `mem-path=${memory.path},share=${memory.kind === 'template' ? 'on' : 'off'}`;
  args[at] = `memory-backend-file,id=ram,size=${String(machine.shape.memoryMib)}M,${file}`;
  // Nothing keeps QEMU from punching what a guest frees out of the file that all clones have.
  const balloon = args.findIndex((word) => word.startsWith('virtio-balloon-pci'));
  args[balloon] = (args[balloon] ?? '').replace('free-page-reporting=on', 'free-page-reporting=off');
  return memory.kind === 'clone' ? [...args, '-incoming', 'defer'] : args;
}
