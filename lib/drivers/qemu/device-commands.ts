/** The QMP commands that plug, unplug and clean up what one entry of the book names. Pure. */
import { HerkosError } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { QmpObject } from '../../wire/qmp/message.js';
import type { DeviceEntry } from './device-book.js';
import { memoryBlockMib } from './memory-device.js';
import { portId, serialPortFirst } from './topology.js';

const reconnectSeconds = 1;

export interface QmpCommand {
  readonly command: string;
  readonly args: QmpObject;
}

/** A layer file, with its size: a multiple of 2 MiB. */
export interface BackingFile {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Ids of the entry's devices in QEMU, by function. */
export function deviceIds(entry: DeviceEntry): string[] {
  const index = String(entry.index);
  switch (entry.kind) {
    case 'layers':
      return entry.keys.map((_, position) => `l${index}f${String(position)}`);
    case 'nvdimm':
      return [`v${index}`];
    case 'disk':
      return [`d${index}`];
    case 'nic':
      return [`n${index}`];
    case 'serial':
      return [`s${index}`];
    case 'cpu':
      return [`c${index}`];
    case 'memory':
      return [`m${index}`];
  }
}

/** Ids of what stands behind the devices: memory backends, a block node, a network or character backend. */
function backendIds(entry: DeviceEntry): string[] {
  if (entry.kind === 'cpu') return [];
  return deviceIds(entry).map((id) => `${id}b`);
}

/**
 * Files as persistent memory. All functions of a port appear together, when function 0 is plugged:
 * so it comes last. `readonly` opens the file O_RDONLY: what the guest writes reaches nobody (S3).
 */
export function plugFiles(entry: DeviceEntry, files: readonly BackingFile[]): QmpCommand[] {
  const backends = backendIds(entry);
  return files
    .map((file, position) => ({ file, position }))
    .reverse()
    .flatMap(({ file, position }) => [
      command('object-add', {
        'qom-type': 'memory-backend-file',
        id: backends[position],
        'mem-path': file.path,
        size: file.sizeBytes,
        share: true,
        readonly: true,
      }),
      entry.kind === 'nvdimm'
        ? // Unarmed: the guest is told that writes will not persist, and QEMU demands it of a read-only file.
          device(entry, position, {
            driver: 'nvdimm',
            slot: entry.index,
            memdev: backends[position],
            unarmed: true,
          })
        : device(entry, position, {
            driver: 'virtio-pmem-pci',
            memdev: backends[position],
            ...onPort(entry, position, files.length > 1),
          }),
    ]);
}

/**
 * A raw file as a disk. The host's page cache is used and flushes end there: a container's writable
 * layer dies with the node anyway, and direct I/O would forbid file systems such as tmpfs. An error
 * is given to the guest; QEMU's default would freeze the whole pod when the node's disk is full.
 * Without `unmaps` the guest can neither discard nor have QEMU write zeroes: it writes them itself.
 */
export function plugDisk(entry: DeviceEntry, path: string, unmaps: boolean): QmpCommand[] {
  const [node] = backendIds(entry);
  const discard = unmaps ? 'unmap' : 'ignore';
  return [
    command('blockdev-add', {
      driver: 'raw',
      'node-name': node,
      discard,
      cache: { direct: false, 'no-flush': true },
      file: {
        driver: 'file',
        filename: path,
        aio: 'threads',
        discard,
        cache: { direct: false, 'no-flush': true },
        locking: 'on',
      },
    }),
    device(entry, 0, {
      driver: 'virtio-blk-pci',
      drive: node,
      werror: 'report',
      rerror: 'report',
      discard: unmaps,
      'write-zeroes': unmaps,
      ...onPort(entry, 0, false),
    }),
  ];
}

/** A NIC on a tap that exists already; vhost is off because its device is not in the jail. */
export function plugNic(entry: DeviceEntry, tap: string, mac: string): QmpCommand[] {
  const [netdev] = backendIds(entry);
  return [
    command('netdev_add', {
      type: 'tap',
      id: netdev,
      ifname: tap,
      script: 'no',
      downscript: 'no',
      vhost: false,
    }),
    device(entry, 0, {
      driver: 'virtio-net-pci',
      netdev,
      mac,
      // No option ROM: nothing boots from the network.
      romfile: '',
      ...onPort(entry, 0, false),
    }),
  ];
}

/**
 * A serial port that is a client of `socketPath`. Who listens there may come later, or go and come
 * again: QEMU tries once a second, and tells its log each time.
 */
export function plugSerial(entry: DeviceEntry, name: string, socketPath: string): QmpCommand[] {
  const [chardev] = backendIds(entry);
  const addr = { type: 'unix', data: { path: socketPath } };
  return [
    command('chardev-add', {
      id: chardev,
      backend: { type: 'socket', data: { addr, server: false, reconnect: reconnectSeconds } },
    }),
    device(entry, 0, {
      driver: 'virtserialport',
      bus: 'serial.0',
      nr: serialPortFirst + entry.index,
      chardev,
      name,
    }),
  ];
}

/** A vCPU into a place that `query-hotpluggable-cpus` has named, with the type that it named there. */
export function plugCpu(entry: DeviceEntry, type: string, props: QmpObject): QmpCommand[] {
  return [device(entry, 0, { ...props, driver: type })];
}

/**
 * The device that gives memory, none of it at first. Nothing is reserved for what the guest does not
 * have, and nothing of it is merged with other guests' memory (S4) or written into a core file.
 */
export function plugMemory(entry: DeviceEntry, sizeMib: number): QmpCommand[] {
  const [backend] = backendIds(entry);
  return [
    command('object-add', {
      'qom-type': 'memory-backend-ram',
      id: backend,
      size: sizeMib * MIB,
      reserve: false,
      merge: false,
      dump: false,
    }),
    device(entry, 0, {
      driver: 'virtio-mem-pci',
      memdev: backend,
      'block-size': memoryBlockMib * MIB,
      ...onPort(entry, 0, false),
    }),
  ];
}

/** Asks the guest to let the port's only device go. */
export function unplug(entry: DeviceEntry): QmpCommand {
  return command('device_del', { id: deviceIds(entry)[0] });
}

/** Removes what stood behind the devices, once they are gone. */
export function removeBackends(entry: DeviceEntry): QmpCommand[] {
  return backendIds(entry).map((id) => {
    switch (entry.kind) {
      case 'layers':
      case 'nvdimm':
      case 'memory':
        return command('object-del', { id });
      case 'serial':
        return command('chardev-remove', { id });
      case 'disk':
        return command('blockdev-del', { 'node-name': id });
      case 'nic':
        return command('netdev_del', { id });
      case 'cpu':
        throw new HerkosError('Internal', 'nothing stands behind a vCPU');
    }
  });
}

function command(name: string, args: QmpObject): QmpCommand {
  return { command: name, args };
}

function device(entry: DeviceEntry, position: number, args: QmpObject): QmpCommand {
  return command('device_add', { id: deviceIds(entry)[position], ...args });
}

function onPort(entry: DeviceEntry, position: number, multifunction: boolean): QmpObject {
  return { bus: portId(entry.index), addr: `0x0.${String(position)}`, multifunction };
}
