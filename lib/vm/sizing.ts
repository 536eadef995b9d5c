import { HerkosError } from '../base/errors.js';
import { MIB } from '../base/units.js';
import { cpusOf, memoryBytesOf } from '../model/resources.js';
import type { ContainerDemand, PodDemand } from '../model/resources.js';
import type { VmShape } from '../model/vm.js';
import type { CgroupLimits } from './ports.js';
import {
  guestMibPerTableMib,
  hypervisorOverheadMib,
  hypervisorShareMib,
  hypervisorThreadsMax,
  memoryMibFloor,
  memoryStepMib,
} from './settings.js';
import type { SizingSettings } from './settings.js';

/** Sums of parts of processors carry rounding errors; nobody means less than this part. */
const cpuParts = 1000;
const containersNamedMax = 8;

/**
 * The machine for a pod: the larger of what the pod as a whole asks for and what its containers do, and
 * what the guest itself needs (or what the RuntimeClass overhead leaves it, when that is more). Containers without a
 * memory limit share one default besides the others' limits; a pod that says nothing gets the defaults.
 *
 * Limits on processors may add up to more than the node has, as they may without a VM: then the machine
 * has as many as the node.
 * @throws HerkosError `ResourceExhausted` when a container, or all together, ask for what this node cannot give a VM
 */
export function sizeFor(settings: SizingSettings, demand: PodDemand): VmShape {
  for (const container of demand.containers) checkContainer(settings, demand, container);
  const memoryMib = memoryFor(settings, demand);
  if (memoryMib > settings.memoryMibMax) throw tooBig(settings, memoryAsked(settings, demand), memoryMib);
  return { vcpus: vcpusFor(settings, demand), memoryMib };
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
export function hypervisorLimits({ vcpus, memoryMib }: VmShape): CgroupLimits {
  const tablesMib = Math.ceil(memoryMib / guestMibPerTableMib);
  return {
    memoryBytesMax: (memoryMib + hypervisorOverheadMib + tablesMib) * MIB,
    pidsMax: hypervisorThreadsMax + vcpus,
  };
}

function vcpusFor(settings: SizingSettings, { resources, containers }: PodDemand): number {
  const { vcpusDefault, vcpusMax } = settings;
  const asked = resources === undefined ? undefined : cpusOf(resources);
  const each = containers.map((container) => cpusOf(container.resources));
  const sum = each.reduce<number>((total, cpus) => total + (cpus ?? 0), 0);
  const isOpen = each.includes(undefined) || (each.length === 0 && asked === undefined);
  const vcpus = Math.max(wholeCpus(Math.max(asked ?? 0, sum)), isOpen ? vcpusDefault : 1);
  return Math.min(vcpus, vcpusMax);
}

function wholeCpus(cpus: number): number {
  return Math.ceil(Math.round(cpus * cpuParts) / cpuParts);
}

function memoryFor(settings: SizingSettings, demand: PodDemand): number {
  const guestBytes = guestBytesOf(settings, demand);
  const defaultBytes = settings.memoryMibDefault * MIB;
  const asked = demand.resources === undefined ? undefined : memoryBytesOf(demand.resources);
  const each = demand.containers.map((container) => memoryBytesOf(container.resources));
  const sum = each.reduce<number>((total, bytes) => total + (bytes ?? 0), 0);
  const rest = each.includes(undefined) ? Math.max(defaultBytes, guestBytes) : guestBytes;
  const bytes = Math.max(asked === undefined ? 0 : asked + guestBytes, each.length === 0 ? 0 : sum + rest);
  const mib = Math.ceil((bytes === 0 ? defaultBytes : bytes) / MIB / memoryStepMib) * memoryStepMib;
  return Math.max(memoryMibFloor, mib);
}

/** The RuntimeClass overhead pays for the hypervisor first, then for the guest; ours only fills it up. */
function guestBytesOf(settings: SizingSettings, { overhead = {} }: PodDemand): number {
  const leftBytes = (memoryBytesOf(overhead) ?? 0) - hypervisorShareMib * MIB;
  return Math.max(settings.guestOverheadMib * MIB, leftBytes);
}

/** One that no machine of this node can hold, even alone. */
function checkContainer(
  settings: SizingSettings,
  demand: PodDemand,
  { name, resources }: ContainerDemand,
): void {
  const vcpus = wholeCpus(cpusOf(resources) ?? 0);
  if (vcpus > settings.vcpusMax) throw tooManyCpus(settings, name, vcpus);
  const memoryBytes = memoryBytesOf(resources);
  if (memoryBytes === undefined) return;
  const memoryMib = Math.ceil((memoryBytes + guestBytesOf(settings, demand)) / MIB);
  if (memoryMib > settings.memoryMibMax)
    throw tooBig(settings, `the container ${name} asks for ${mibOf(memoryBytes)}`, memoryMib);
}

function memoryAsked(
  { memoryMibDefault }: SizingSettings,
  { resources = {}, containers }: PodDemand,
): string {
  const asked = memoryBytesOf(resources);
  const limited = containers.flatMap(({ name, resources: own }) => {
    const bytes = memoryBytesOf(own);
    return bytes === undefined ? [] : [{ name, bytes }];
  });
  const sum = limited.reduce((total, { bytes }) => total + bytes, 0);
  if (asked !== undefined && asked >= sum) return `the pod asks for ${mibOf(asked)}`;
  if (limited.length === 0)
    return `a pod without a memory limit is given ${mibOf(memoryMibDefault * MIB)} (vm.memory)`;
  const named = limited.slice(0, containersNamedMax).map(({ name, bytes }) => `${name}: ${mibOf(bytes)}`);
  const more = limited.length > named.length ? ', …' : '';
  return `the pod’s containers ask for ${mibOf(sum)} together (${named.join(', ')}${more})`;
}

function tooManyCpus({ vcpusMax }: SizingSettings, container: string, vcpus: number): HerkosError {
  return new HerkosError(
    'ResourceExhausted',
    `the container ${container} asks for ${String(vcpus)} processors, and this node gives one VM at most ${String(vcpusMax)}; lower its cpu limit, or use a node with more`,
    { reason: 'VM_TOO_BIG' },
  );
}

function mibOf(bytes: number): string {
  return `${String(Math.ceil(bytes / MIB))} MiB of memory`;
}

function tooBig({ memoryMibMax }: SizingSettings, asked: string, neededMib: number): HerkosError {
  return new HerkosError(
    'ResourceExhausted',
    `${asked}; with what the guest needs itself that is ${String(neededMib)} MiB, and this node gives one VM at most ${String(memoryMibMax)} MiB`,
    { reason: 'VM_TOO_BIG' },
  );
}
