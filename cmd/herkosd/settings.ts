/** From the configuration file to the settings of rooms and drivers. */
import { availableParallelism, totalmem } from 'node:os';
import { join, resolve } from 'node:path';

import { MIB } from '../../lib/base/units.js';
import type { Config } from '../../lib/config/load.js';
import { hostHelperOf } from '../../lib/config/node.js';
import type { CniSettings } from '../../lib/drivers/cni/settings.js';
import { cniDefaults } from '../../lib/drivers/cni/settings.js';
import type { GuestFiles, QemuSettings } from '../../lib/drivers/qemu/settings.js';
import { memoryMibLimit, qemuDefaults, vcpusLimit } from '../../lib/drivers/qemu/settings.js';
import type { RegistrySettings } from '../../lib/drivers/registry/settings.js';
import { defaultRetry, proxyFromEnvironment } from '../../lib/drivers/registry/settings.js';
import type { ImageSettings } from '../../lib/image/settings.js';
import type { PodSettings } from '../../lib/pod/settings.js';
import { defaultDeadlines } from '../../lib/pod/settings.js';
import type { SizingSettings, VmSettings } from '../../lib/vm/settings.js';
import { hostPlatform } from '../../lib/wire/oci/platform.js';
import { version } from './version.js';

/** Where guest/build puts its result, seen from the compiled program. */
const guestBeside = resolve(import.meta.dirname, '../../../guest/out');
const connectTimeoutMs = 10_000;
/** Left on the disk for everything else on the node. */
const freeBytesMin = 256 * MIB;
/** Of the node's memory, for the node itself. */
const reservedMib = 256;
/** Machines kept ready for all kinds of pods together. */
const poolSizeMax = 64;
/** One can use a processor while another waits for the network or the disk. */
const startsPerProcessor = 2;
const poolIdleMsMax = 30 * 60_000;
const templateIdleMsMin = 10 * 60_000;

/** Whole ones: timers of libraries refuse others. */
function msOf(seconds: number): number {
  return Math.round(seconds * 1_000);
}

export function guestDirectory(config: Config): string {
  return config.vm.guest_dir === '' ? guestBeside : config.vm.guest_dir;
}

export function qemuSettings({ node, vm }: Config, guest: GuestFiles): QemuSettings {
  return {
    ...qemuDefaults,
    instance: node.instance,
    binary: vm.qemu,
    hostHelper: hostHelperOf(node),
    accel: vm.accel,
    runDir: node.run_dir,
    stateDir: node.state_dir,
    guest,
    layerDevice: vm.layer_device,
    uidFirst: vm.uid_first,
    uidCount: vm.uid_count,
    sharedGid: sharedGid(vm),
    bootTimeoutMs: msOf(vm.boot_timeout_seconds),
    console: vm.console,
  };
}

/**
 * May read layer files. The number before the range: no VM's own group is it, and it stays the same when the range
 * grows while VMs run.
 */
export function sharedGid(vm: Config['vm']): number {
  return vm.uid_first - 1;
}

export function vmSettings({ node, vm }: Config): VmSettings {
  const bootMib = Math.ceil(vm.memory / MIB);
  return {
    instance: node.instance,
    uidFirst: vm.uid_first,
    uidCount: vm.uid_count,
    sizing: {
      vcpusDefault: vm.vcpus,
      memoryMibDefault: bootMib,
      guestOverheadMib: Math.ceil(vm.memory_overhead / MIB),
      ...vmMost(bootMib, availableParallelism(), Math.floor(totalmem() / MIB)),
    },
    poolCgroupParent: '',
    mergeableDomains: vm.ksm_domains,
    templates: {
      enabled: vm.templates,
      directory: join(node.run_dir, 'templates'),
      bytesMax: vm.template_memory,
      ageMsMax: msOf(vm.template_age_seconds),
      usesMax: vm.template_uses,
      buildTimeoutMs: 2 * msOf(vm.boot_timeout_seconds),
      // What is left is for the start of a VM that boots instead.
      waitMsMax: defaultDeadlines.vmMs / 2,
      idleMsMin: templateIdleMsMin,
    },
    pool: {
      size: vm.pool,
      sizeMax: Math.max(vm.pool, poolSizeMax),
      memoryBytesMax: vm.pool_memory,
      memoryReserveBytes: vm.pool_memory_reserve,
      idleMsMax: poolIdleMsMax,
    },
  };
}

/** What a node of that size can give one VM: no more than QEMU's machine is made for. */
export function vmMost(
  bootMib: number,
  processors: number,
  nodeMib: number,
): Pick<SizingSettings, 'vcpusMax' | 'memoryMibMax'> {
  return {
    vcpusMax: Math.min(processors, vcpusLimit),
    memoryMibMax: Math.max(0, Math.min(nodeMib - reservedMib, bootMib + memoryMibLimit)),
  };
}

export function cniSettings({ node, network }: Config): CniSettings {
  const defaultNetwork = {
    name: `${node.instance}-default`,
    bridge: network.default_bridge,
    subnets: network.default_subnets,
  };
  return {
    instance: node.instance,
    hostHelper: hostHelperOf(node),
    confDir: network.conf_dir,
    binDirs: network.bin_dirs,
    stateDir: join(node.state_dir, 'cni'),
    ...(network.built_in ? { defaultNetwork } : {}),
    pluginTimeoutMs: cniDefaults.pluginTimeoutMs,
    soleRuntime: network.sole_runtime,
  };
}

export function registrySettings({ image }: Config): RegistrySettings {
  return {
    hostsDirectory: image.registries_dir,
    stallTimeoutMs: msOf(image.stall_timeout_seconds),
    connectTimeoutMs,
    version,
    proxy: proxyFromEnvironment(process.env),
    retry: defaultRetry,
  };
}

export function imageSettings({ node, image, vm }: Config): ImageSettings {
  return {
    rootDirectory: join(node.state_dir, 'image'),
    readersGid: sharedGid(vm),
    layersAtATime: image.layers_at_a_time,
    limits: { uncompressedBytesMax: image.layer_bytes_max, entriesMax: image.layer_entries_max },
    freeBytesMin,
    platform: hostPlatform(),
    pinnedNames: [],
  };
}

export function podSettings({ node, pod, vm }: Config): PodSettings {
  return {
    stateDirectory: node.state_dir,
    writableDiskBytes: pod.writable_layer,
    shmBytes: pod.shm,
    resolvConfPath: '/etc/resolv.conf',
    startsAtATime:
      pod.starts_at_a_time === 0 ? startsPerProcessor * availableParallelism() : pod.starts_at_a_time,
    deadlines: {
      ...defaultDeadlines,
      bootMs: msOf(vm.boot_timeout_seconds),
      guestMs: msOf(pod.guest_timeout_seconds),
    },
  };
}
