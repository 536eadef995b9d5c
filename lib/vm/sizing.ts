import { HerkosError } from '../base/errors.js';
import { MIB } from '../base/units.js';
import type { LinuxResources } from '../model/resources.js';
import type { VmShape } from '../model/vm.js';
import type { CgroupLimits } from './ports.js';
import { hypervisorOverheadMib, hypervisorThreadsMax, memoryMibFloor } from './settings.js';
import type { SizingSettings } from './settings.js';

const cpuPeriodDefaultUs = 100_000;
/** Linux onlines and QEMU offers memory in blocks; odd sizes only waste the rest. */
const memoryStepMib = 2;

/**
 * The machine for a pod: its limits, the RuntimeClass overhead, and what the guest itself needs.
 * Without limits the defaults, which are for containers and guest together.
 * @throws HerkosError `ResourceExhausted` when the pod asks for more than this node can give a VM
 */
export function shapeFor(
  settings: SizingSettings,
  resources: LinuxResources = {},
  overhead: LinuxResources = {},
): VmShape {
  const shape = { vcpus: vcpusFor(settings, resources), memoryMib: memoryFor(settings, resources, overhead) };
  checkShape(settings, shape);
  return shape;
}

/** @throws HerkosError `ResourceExhausted` above what the node can give, `InvalidArgument` for nonsense */
export function checkShape(settings: SizingSettings, { vcpus, memoryMib }: VmShape): void {
  if (!Number.isInteger(vcpus) || vcpus < 1 || !Number.isInteger(memoryMib))
    throw new HerkosError(
      'InvalidArgument',
      `a VM of ${String(vcpus)} vCPUs and ${String(memoryMib)} MiB makes no sense`,
    );
  if (memoryMib < memoryMibFloor)
    throw new HerkosError(
      'InvalidArgument',
      `a VM of ${String(memoryMib)} MiB cannot start a container; it needs ${String(memoryMibFloor)} MiB at least`,
    );
  if (vcpus > settings.vcpusMax || memoryMib > settings.memoryMibMax)
    throw new HerkosError(
      'ResourceExhausted',
      `the pod needs a VM of ${String(vcpus)} vCPUs and ${String(memoryMib)} MiB; this node gives one VM at most ${String(settings.vcpusMax)} vCPUs and ${String(settings.memoryMibMax)} MiB`,
      { reason: 'VM_TOO_BIG' },
    );
}

/** Limits of the hypervisor's own cgroup: what the guest cannot reach from inside must end here. */
export function hypervisorLimits(shape: VmShape): CgroupLimits {
  return {
    memoryBytesMax: (shape.memoryMib + hypervisorOverheadMib) * MIB,
    pidsMax: hypervisorThreadsMax + shape.vcpus,
  };
}

/** As many processors as the quota can fill. */
function vcpusFor(settings: SizingSettings, { cpuQuotaUs, cpuPeriodUs }: LinuxResources): number {
  if (cpuQuotaUs === undefined || cpuQuotaUs <= 0) return settings.vcpusDefault;
  const period = cpuPeriodUs === undefined || cpuPeriodUs <= 0 ? cpuPeriodDefaultUs : cpuPeriodUs;
  return Math.max(1, Math.ceil(cpuQuotaUs / period));
}

function memoryFor(settings: SizingSettings, resources: LinuxResources, overhead: LinuxResources): number {
  const limitBytes = resources.memoryLimitBytes ?? 0;
  if (limitBytes <= 0) return settings.memoryMibDefault;
  const overheadBytes = Math.max(0, overhead.memoryLimitBytes ?? 0);
  // The RuntimeClass overhead pays for the guest and the hypervisor; ours only fills it up.
  const guestBytes = Math.max(settings.guestOverheadMib * MIB, overheadBytes);
  const mib = Math.ceil((limitBytes + guestBytes) / MIB / memoryStepMib) * memoryStepMib;
  return Math.max(memoryMibFloor, mib);
}
