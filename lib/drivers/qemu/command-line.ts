import type { Accelerator, VmShape } from '../../model/vm.js';
import { GIB, MIB } from '../../base/units.js';
import { HerkosError } from '../../base/errors.js';
import type { VmMemory } from '../../vm/ports.js';
import type { QmpCommand } from './device-commands.js';
import { memoryDeviceMib } from './memory-device.js';
import type { GuestFiles, QemuSettings } from './settings.js';
import { vcpusLimit } from './settings.js';
import type { VmPaths } from './run-dir.js';
import {
  balloonSlot,
  entropySlot,
  placeText,
  portCountMax,
  portId,
  portPlace,
  rootImageSlot,
  serialSlot,
} from './topology.js';

/** Name of the agent's virtio-serial port, as the guest sees it. */
export const agentPortName = 'herkos.agent.0';
/** QEMU's id of that port, as events name it. */
export const agentPortId = 'agent';

/** Guest addresses reserved for layers; what memory is hot-plugged comes on top. */
const layerAddressBytes = 64 * GIB;
/** Each slot is a device in the ACPI tables that the guest interprets at boot. */
export const nvdimmSlots = 32;

export interface MachineSpec {
  readonly processName: string;
  readonly shape: VmShape;
  readonly accelerator: Accelerator;
  readonly guest: GuestFiles;
  /** Size of `guest.root`; 0 when there is none. */
  readonly guestRootBytes: number;
  readonly paths: VmPaths;
  readonly memory: VmMemory;
  /** What is plugged behind root ports from the beginning. */
  readonly plugged?: readonly QmpCommand[];
  /** The kernel may merge its pages with equal ones of other such processes; absent: it may not. */
  readonly mergeable?: boolean;
}

export type MachineSettings = Pick<
  QemuSettings,
  'portCount' | 'tbSizeMib' | 'layerDevice' | 'console' | 'vcpusMax' | 'memoryMibMax'
>;

/**
 * The arguments of QEMU for a pod's machine. The guest does not run until `cont`.
 * @throws HerkosError `InvalidArgument` for values that QEMU's option syntax could misread.
 */
export function commandLine(settings: MachineSettings, spec: MachineSpec): string[] {
  return [
    ...['-name', `guest=${optionValue(spec.processName)},process=${optionValue(spec.processName)}`],
    ...bareMachine(settings, spec),
    ...processor(settings, spec),
    ...memory(settings, spec),
    ...kernel(settings, spec),
    ...monitor(spec.paths),
    ...agentPort(spec.paths),
    ...['-device', `virtio-rng-pci,addr=${hex(entropySlot)},disable-legacy=on,max-bytes=65536,period=1000`],
    ...rootImage(spec),
    ...rootPorts(settings.portCount),
    ...(spec.plugged ?? []).flatMap(asOption),
    ...generationId,
    ...balloon,
    ...(spec.memory.kind === 'clone' ? ['-incoming', 'defer'] : []),
    ...(settings.console ? console(spec.paths) : []),
  ];
}

/** Name in the command line of a VM's process, by which it is found when no record of its pid was kept. */
export function processName(instance: string, id: string): string {
  return `herkos-${instance}-${id}`;
}

/** Commas separate QEMU's options and are doubled inside a value; control characters have no business there. */
export function optionValue(value: string): string {
  if (/[\x00-\x1f\x7f]/.test(value))
    throw new HerkosError('InvalidArgument', 'a path or name for QEMU holds control characters');
  return value.replaceAll(',', ',,');
}

/** The same as a QMP command that plugs something, for a QEMU that has not started yet. */
function asOption({ command, args }: QmpCommand): string[] {
  const values = Object.entries(args).map(([key, value]) => {
    if (typeof value === 'boolean') return `${key}=${value ? 'on' : 'off'}`;
    return `${key}=${optionValue(String(value))}`;
  });
  return [command === 'netdev_add' ? '-netdev' : '-device', values.join(',')];
}

function bareMachine(settings: MachineSettings, spec: MachineSpec): string[] {
  const machine = [
    'q35',
    'usb=off',
    'vmport=off',
    'smbus=off',
    'sata=off',
    'hpet=off',
    'graphics=off',
    'i8042=off',
    'memory-backend=ram',
    // Equal pages of different tenants must not be merged (S4), and a crash must not write guest memory out.
    `mem-merge=${spec.mergeable === true ? 'on' : 'off'}`,
    'dump-guest-core=off',
    ...(settings.layerDevice === 'nvdimm' ? ['nvdimm=on'] : []),
  ];
  const accel = spec.accelerator === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${String(settings.tbSizeMib)}`;
  return [
    ...['-machine', machine.join(','), '-accel', accel],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-S'],
    ...['-boot', 'menu=off,strict=on', '-rtc', 'base=utc', '-msg', 'timestamp=on'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
  ];
}

function processor(settings: MachineSettings, spec: MachineSpec): string[] {
  const { vcpus } = spec.shape;
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > vcpusLimit)
    throw new HerkosError(
      'InvalidArgument',
      `a VM has 1 to ${String(vcpusLimit)} vCPUs, not ${String(vcpus)}`,
    );
  // The others can be plugged later.
  const most = Math.min(vcpusLimit, Math.max(vcpus, settings.vcpusMax));
  const model = spec.accelerator === 'kvm' ? 'host' : 'max';
  return ['-cpu', model, '-smp', `cpus=${String(vcpus)},maxcpus=${String(most)}`];
}

function memory(
  { layerDevice, memoryMibMax }: MachineSettings,
  { shape: { memoryMib }, memory: from }: MachineSpec,
): string[] {
  const maxMib = memoryMib + layerAddressBytes / MIB + memoryDeviceMib(memoryMibMax);
  const slots = layerDevice === 'nvdimm' ? nvdimmSlots : 1;
  return [
    ...['-object', `${memoryBackend(from)},id=ram,size=${String(memoryMib)}M`],
    ...['-m', `size=${String(memoryMib)}M,slots=${String(slots)},maxmem=${String(maxMib)}M`],
  ];
}

/** A clone's mapping is private: its writes stay with it. */
function memoryBackend(memory: VmMemory): string {
  if (memory.kind === 'own') return 'memory-backend-ram';
  const share = memory.kind === 'template' ? 'on' : 'off';
  return `memory-backend-file,mem-path=${optionValue(memory.image.memory.path)},share=${share}`;
}

/**
 * Takes memory back that the guest has freed. QEMU punches it out of the file behind the memory too, private
 * mapping or not: a clone's jail keeps it from that, as the file is every clone's.
 */
const balloon = [
  '-device',
  `virtio-balloon-pci,addr=${hex(balloonSlot)},disable-legacy=on,free-page-reporting=on`,
];

/** Tells the guest's kernel that it is a copy; it then reseeds its random generator (S5). */
const generationId = ['-device', 'vmgenid,guid=auto'];

function kernel(settings: MachineSettings, spec: MachineSpec): string[] {
  const words = [
    spec.guest.commandLine,
    // Room for hot-plugged memory above 4 GiB makes Linux set 64 MiB aside for bounce buffers, which
    // virtio devices, all of them 64 bit wide, never use.
    'swiotlb=noforce',
    ...(spec.guest.root === undefined
      ? []
      : [`herkos.root=pci0:${placeText({ slot: rootImageSlot, function: 0 })}`]),
    // The last word of a kind counts.
    ...(settings.console ? ['console=ttyS0', '8250.nr_uarts=1', 'loglevel=4'] : []),
  ];
  return ['-kernel', spec.guest.kernel, '-initrd', spec.guest.initramfs, '-append', words.join(' ')];
}

function monitor(paths: VmPaths): string[] {
  return [
    ...['-chardev', `socket,id=qmp,path=${optionValue(paths.qmpSocket)},server=on,wait=off`],
    ...['-mon', 'chardev=qmp,mode=control'],
  ];
}

function agentPort(paths: VmPaths): string[] {
  return [
    ...['-device', `virtio-serial-pci,id=serial,addr=${hex(serialSlot)},disable-legacy=on`],
    ...['-chardev', `socket,id=agent,path=${optionValue(paths.agentSocket)},server=on,wait=off`],
    ...['-device', `virtserialport,id=${agentPortId},bus=serial.0,chardev=agent,name=${agentPortName}`],
  ];
}

function rootImage(spec: MachineSpec): string[] {
  if (spec.guest.root === undefined) return [];
  const file = `mem-path=${optionValue(spec.guest.root)},size=${String(spec.guestRootBytes)}`;
  return [
    ...['-object', `memory-backend-file,id=root,${file},share=on,readonly=on`],
    ...['-device', `virtio-pmem-pci,id=rootdev,memdev=root,addr=${hex(rootImageSlot)}`],
  ];
}

function rootPorts(count: number): string[] {
  if (!Number.isInteger(count) || count < 1 || count > portCountMax)
    throw new HerkosError(
      'InvalidArgument',
      `a VM has 1 to ${String(portCountMax)} root ports, not ${String(count)}`,
    );
  return Array.from({ length: count }, (_, index) => {
    const place = placeText(portPlace(index));
    // Behind a port there are no I/O ports: their whole space would be used up by the 16th window.
    const fixed = `bus=pcie.0,addr=${place},chassis=${String(index + 1)},multifunction=on,io-reserve=0`;
    return ['-device', `pcie-root-port,id=${portId(index)},${fixed}`];
  }).flat();
}

function console(paths: VmPaths): string[] {
  return [
    ...['-chardev', `file,id=console,path=${optionValue(paths.log)},append=on`],
    ...['-serial', 'chardev:console'],
  ];
}

function hex(slot: number): string {
  return `0x${slot.toString(16)}`;
}
