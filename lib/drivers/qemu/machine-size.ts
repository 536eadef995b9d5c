import type { Context } from '../../base/context.js';
import { abortable } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import type { VmShape } from '../../model/vm.js';
import { MemoryPlug } from './memory-plug.js';
import type { Plugger } from './plugger.js';
import { VcpuPlugs } from './vcpu-plugs.js';

export interface MachineSizeOptions {
  /** What the VM booted with, and never gets below. */
  readonly boot: VmShape;
  /** Memory that can be plugged on top of that; the machine has addresses for it. */
  readonly memoryMibMax: number;
  /** Whether vCPUs can be unplugged again. */
  readonly vcpusLeave: boolean;
  /** Without hardware acceleration. */
  readonly emulated: boolean;
  readonly unplugTimeoutMs: number;
}

const lockKey = 'size';

/** How many vCPUs and how much memory one VM has. QEMU is asked each time: the guest has a say in both. */
export class MachineSize {
  readonly #vcpus: VcpuPlugs;
  readonly #memory: MemoryPlug;
  readonly #lock = new KeyedLock();

  constructor(plugger: Plugger, options: MachineSizeOptions) {
    this.#vcpus = new VcpuPlugs(plugger, options);
    this.#memory = new MemoryPlug(plugger, options);
  }

  /** Nothing changes when `size` is refused; after another failure part of it may be done. */
  async resize(ctx: Context, size: VmShape): Promise<VmShape> {
    checkCount('vCPUs', size.vcpus);
    checkCount('MiB of memory', size.memoryMib);
    // Other devices come and go while the guest takes its time, but not another size.
    const done = this.#lock.run(ctx, lockKey, async () => {
      await this.#vcpus.check(ctx, size.vcpus);
      await this.#memory.check(ctx, size.memoryMib);
      const vcpus = await this.#vcpus.resize(ctx, size.vcpus);
      return { vcpus, memoryMib: await this.#memory.resize(ctx, size.memoryMib) };
    });
    return abortable(ctx, done);
  }

  async current(ctx: Context): Promise<VmShape> {
    return { vcpus: await this.#vcpus.current(ctx), memoryMib: await this.#memory.current(ctx) };
  }
}

function checkCount(what: string, count: number): void {
  if (!Number.isSafeInteger(count) || count < 1)
    throw new HerkosError('InvalidArgument', `a VM cannot have ${String(count)} ${what}`);
}
