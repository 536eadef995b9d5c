import { background } from '../../../lib/base/context.js';
import type { LayerDevice } from '../../../lib/model/image.js';
import type { VmRecord, VmShape } from '../../../lib/model/vm.js';
import type { RunningVm, VmDriver, VmSpec } from '../../../lib/vm/ports.js';
import { eventually } from '../../tools/eventually.js';

export interface VmDriverHarness {
  readonly driver: VmDriver;
  /** Devices that fit on the bus. */
  readonly portCount: number;
  readonly serialPortCount: number;
  /** What a VM can be brought to; memory on top of what it booted with. */
  readonly vcpusMax: number;
  readonly memoryMibMax: number;
  /** Whether vCPUs can be taken away again. */
  readonly vcpusLeave: boolean;
  /** A VM with everything it needs around it: namespace, tap, uid. */
  newSpec(): Promise<VmSpec>;
  /** One that becomes a template. */
  newTemplateSpec(): Promise<VmSpec>;
  /** A file of `sizeBytes` that a VM can open, with a record that says `recordedBytes`. */
  newLayer(sizeBytes?: number, recordedBytes?: number): Promise<LayerDevice>;
  newDisk(): Promise<string>;
  /** Where the socket of a serial port may be; nobody listens there. */
  newSocketPath(): string;
  /** As if the daemon had been killed and started again: a driver that knows nothing yet. */
  restartedDriver(): VmDriver;
  /** SIGKILL from outside. */
  killProcess(pid: number): void;
  /** Resolves when the guest runs, so that it can answer an unplug request. */
  guestUp(vm: RunningVm): Promise<void>;
  /** Removes whatever the tests made, VMs included. */
  cleanUp(): Promise<void>;
}

/** Of one test. */
export interface Setting {
  readonly harness: VmDriverHarness;
  readonly driver: VmDriver;
  readonly start: (given?: VmSpec) => Promise<{ readonly spec: VmSpec; readonly vm: RunningVm }>;
}

/** The record as it is kept once the process runs. */
export function recordOf(spec: VmSpec, vm: RunningVm): VmRecord {
  return { ...spec.record, pid: vm.pid, processStartTicks: vm.processStartTicks };
}

/** Until the machine has all the vCPUs: a hypervisor may be unable to start another one just now. */
export async function grown(vm: RunningVm, size: VmShape): Promise<VmShape> {
  let now = await vm.resize(background(), size);
  await eventually(async () => {
    if (now.vcpus < size.vcpus) now = await vm.resize(background(), size);
    return now.vcpus >= size.vcpus;
  });
  return now;
}
