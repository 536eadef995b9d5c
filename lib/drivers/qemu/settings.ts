import { availableParallelism, totalmem } from 'node:os';

import { MIB } from '../../base/units.js';

/** What the QEMU driver must be told; `lib/config` and main fill it. Sizes and times carry their unit last. */
export type AccelSetting = 'auto' | 'kvm' | 'tcg';
export type LayerDeviceKind = 'virtio-pmem' | 'nvdimm';

export interface QemuSettings {
  /** Part of every process name, so that two daemons on one node never touch each other's VMs. */
  readonly instance: string;
  /** Program name or absolute path. */
  readonly binary: string;
  /** The program `herkos-host`. */
  readonly hostHelper: string;
  readonly accel: AccelSetting;
  /** `vm/<id>/` of each VM below it: sockets, log, device list. Lives as long as the boot: put it on tmpfs. */
  readonly runDir: string;
  /** The accelerator's verdict is remembered here. */
  readonly stateDir: string;
  /** Where named network namespaces are mounted by ip(8). */
  readonly netnsDirectory: string;
  readonly guest: GuestFiles;
  readonly layerDevice: LayerDeviceKind;
  /** VMs run as uids (and gids of the same number) `uidFirst … uidFirst + uidCount - 1`. */
  readonly uidFirst: number;
  readonly uidCount: number;
  /** Supplementary group of every VM process: may read layer files and use the jail's device nodes, nothing else. */
  readonly sharedGid: number;
  /** Root ports for hot-plug; every container needs one for its disk and one for its image, the NIC needs one. */
  readonly portCount: number;
  /** vCPUs that a VM can be brought to, 1 to `vcpusLimit`; each costs the guest memory even while it is not plugged. */
  readonly vcpusMax: number;
  /** Memory that can be plugged on top of what a VM booted with, 0 to `memoryMibLimit`. */
  readonly memoryMibMax: number;
  /** The translation cache of one VM without hardware acceleration; below 16 QEMU hangs. */
  readonly tbSizeMib: number;
  /** Until the guest of the accelerator's proof has opened the agent's port. */
  readonly bootTimeoutMs: number;
  /** How long an unplug waits for the guest to let a device go. */
  readonly unplugTimeoutMs: number;
  /** Keep the guest's serial console in the VM's log; the guest can write there at will. */
  readonly console: boolean;
}

/** The bootable guest, as guest/build makes it. */
export interface GuestFiles {
  /** ELF with a PVH entry. */
  readonly kernel: string;
  readonly initramfs: string;
  /** EROFS; opened read-only, a multiple of 2 MiB. Undefined: the initramfs is all there is. */
  readonly root: string | undefined;
  readonly commandLine: string;
  /** Changes whenever any of the files does. */
  readonly digest: string;
}

export const vcpusLimit = 64;
/** With the addresses of layers and of PCI it fits in 39 bits, the least that today's processors have. */
export const memoryMibLimit = 256 * 1024;

export const qemuDefaults = {
  binary: 'qemu-system-x86_64',
  accel: 'auto',
  netnsDirectory: '/run/netns',
  layerDevice: 'virtio-pmem',
  /** Each costs the booting guest 15 to 25 ms of emulated processor time. */
  portCount: 16,
  vcpusMax: Math.min(vcpusLimit, availableParallelism()),
  memoryMibMax: Math.min(memoryMibLimit, Math.floor(totalmem() / MIB)),
  tbSizeMib: 32,
  bootTimeoutMs: 60_000,
  unplugTimeoutMs: 10_000,
  console: false,
} as const satisfies Partial<QemuSettings>;
