/** The ports of the pod room on a world in memory. */
import { join } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import type { Exec } from '../../lib/base/exec.js';
import type { Logger } from '../../lib/base/logger.js';
import type { DeviceLocator } from '../../lib/model/vm.js';
import { systemLogFiles } from '../../lib/pod/output/files.js';
import type { LogFiles, OpenLog } from '../../lib/pod/output/files.js';
import type { Leftover, PodVm, RecordStore } from '../../lib/pod/ports.js';
import type { PodParts } from '../../lib/pod/room.js';
import { sizeFor } from '../../lib/vm/sizing.js';
import { connectGuest } from './pod-connection.js';
import type { FakeWorld } from './pod-world.js';
import { FakeVm, testSizing } from './pod-world.js';

/** Carries a call from the room to the world, or does not: where failures and deaths are made. */
export type Carry = <T>(name: string, ctx: Context | undefined, effect: () => T | Promise<T>) => Promise<T>;

export class FakePorts {
  readonly #world: FakeWorld;
  readonly #call: Carry;

  constructor(world: FakeWorld, call: Carry) {
    this.#world = world;
    this.#call = call;
  }

  parts(log: Logger): PodParts {
    const world = this.#world;
    return {
      log,
      observer: world.observer,
      stores: {
        sandboxes: this.#store('sandbox', world.sandboxes),
        containers: this.#store('container', world.containers),
      },
      vms: this.#vms(),
      network: this.#network(),
      images: this.#images(),
      guests: {
        connect: (ctx, socket) =>
          this.#call('connect', ctx, () => connectGuest(this.#call, world, ctx, world.vm(socket))),
      },
      exec: this.#exec(),
      files: this.#files(),
      sizing: (demand) => sizeFor(testSizing, demand),
      settings: {
        stateDirectory: world.stateDirectory,
        writableDiskBytes: 64 * 1024 * 1024,
        shmBytes: 64 * 1024 * 1024,
        startsAtATime: 4,
        resolvConfPath: join(world.directory, 'resolv.conf'),
        deadlines: world.deadlines,
      },
    };
  }

  #store<T extends { readonly id: string }>(kind: string, records: Map<string, T>): RecordStore<T> {
    return {
      loadAll: () =>
        this.#call(`${kind}.loadAll`, undefined, () =>
          [...records.values()].map((one) => structuredClone(one)),
        ),
      put: (record) => {
        const copy = structuredClone(record);
        return this.#call(`${kind}.put`, undefined, () => {
          records.set(copy.id, copy);
        });
      },
      delete: (id) =>
        this.#call(`${kind}.delete`, undefined, () => {
          records.delete(id);
        }),
    };
  }

  #vms(): PodParts['vms'] {
    const { vms } = this.#world;
    return {
      acquire: (ctx, { sandboxId, placeUser }) =>
        this.#call('acquire', ctx, () => {
          const vm = new FakeVm(sandboxId, this.#world.vmSource);
          vms.set(sandboxId, vm);
          placeUser?.begin({ netnsPath: `/run/netns/${vm.id}`, tap: 'tap0' });
          if (vm.source !== 'cold') this.#world.spoilClone(vm);
          return this.#podVm(vm);
        }),
      replaceCold: (ctx, id) =>
        this.#call('replaceCold', ctx, () => {
          vms.get(id)?.die();
          const vm = new FakeVm(id);
          vms.set(id, vm);
          return this.#podVm(vm);
        }),
      adopt: (ctx, id) =>
        this.#call('adopt', ctx, () => {
          const vm = vms.get(id);
          // As real ones do, for a daemon that died in between.
          vm?.resume();
          return vm?.isAlive === true ? this.#podVm(vm) : undefined;
        }),
      destroyGone: (ctx, id) =>
        this.#call('destroyGone', ctx, () => {
          vms.get(id)?.die();
          vms.delete(id);
        }),
      sweep: (ctx, known) =>
        this.#call('sweep', ctx, async () => {
          const swept: { removed: string[]; left: Leftover[] } = { removed: [], left: [] };
          for (const id of [...vms.keys()].filter((one) => !known.has(one))) {
            const remove = (step: Context): Promise<void> =>
              this.#call('sweep.remove', step, () => {
                vms.get(id)?.die();
                vms.delete(id);
              });
            await remove(ctx).then(
              () => swept.removed.push(id),
              () => swept.left.push({ what: id, remove }),
            );
          }
          return swept;
        }),
    };
  }

  #podVm(vm: FakeVm): PodVm {
    const use = <T>(name: string, ctx: Context, effect: () => T): Promise<T> =>
      this.#call(name, ctx, () => {
        if (!vm.isAlive) throw new HerkosError('Unavailable', 'the virtual machine is gone');
        return effect();
      });
    const plug = (owner: string, path: string): DeviceLocator => {
      const taken = [...vm.plugged.values()].flat().length;
      if (taken >= vm.placesMax)
        throw new HerkosError('ResourceExhausted', 'no place is left', { reason: 'VM_PORTS_EXHAUSTED' });
      const devices = vm.plugged.get(owner) ?? [];
      devices.push(path);
      vm.plugged.set(owner, devices);
      return { kind: 'pci', rootPort: `${String(devices.length)}.0`, function: 0 };
    };
    return {
      record: {
        schemaVersion: 1,
        id: vm.id,
        sandboxId: vm.id,
        domain: 'default',
        driver: 'fake',
        shape: vm.shape,
        accelerator: 'tcg',
        source: vm.source,
        uid: process.getuid?.() ?? 0,
        netns: `ns-${vm.id}`,
        tap: 'tap0',
        cgroupParent: '',
        pid: 1,
        processStartTicks: '1',
      },
      netnsPath: `/run/netns/${vm.id}`,
      tap: 'tap0',
      agentSocketPath: vm.id,
      exited: vm.exited,
      resume: (ctx) =>
        use('resume', ctx, () => {
          vm.resume();
        }),
      plugNic: (ctx, mac) =>
        use('plugNic', ctx, () => {
          vm.nics.push(mac);
          return vm.spareMac ?? mac;
        }),
      plugLayers: (ctx, owner, layers) =>
        use('plugLayers', ctx, () => layers.map((layer) => plug(owner, layer.path))),
      plugDisk: (ctx, owner, path) => use('plugDisk', ctx, () => plug(owner, path)),
      plugPort: (ctx, owner, name) =>
        use('plugPort', ctx, () => {
          plug(owner, name);
        }),
      resize: (ctx, size) => use('resize', ctx, () => vm.resize(size)),
      size: (ctx) => use('size', ctx, () => vm.taken),
      unplugGone: (ctx, owner) =>
        use('unplugGone', ctx, () => {
          vm.plugged.delete(owner);
        }),
      powerDown: (ctx) => use('powerDown', ctx, () => undefined),
      kill: (ctx) =>
        this.#call('kill', ctx, () => {
          vm.die();
        }),
    };
  }

  #network(): PodParts['network'] {
    const { networks } = this.#world;
    return {
      attach: (ctx, { sandboxId }) =>
        this.#call('attach', ctx, () => {
          networks.add(sandboxId);
          return {
            ips: ['10.1.2.3', 'fd00::3'],
            interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1500, addresses: [], routes: [] }],
          };
        }),
      detachGone: (ctx, { sandboxId }) =>
        this.#call('detachGone', ctx, () => {
          networks.delete(sandboxId);
        }),
      collectGarbage: (ctx, known) =>
        this.#call('collectGarbage', ctx, () => {
          for (const id of [...networks]) if (!known.has(id)) networks.delete(id);
        }),
      status: () => Promise.resolve({ ready: true, reason: '', message: '' }),
    };
  }

  #images(): PodParts['images'] {
    const { images, holds, imageFiles } = this.#world;
    return {
      resolve: (reference) => {
        const image = images.get(reference);
        if (image === undefined) throw new HerkosError('NotFound', `there is no image ${reference}`);
        return image;
      },
      hold: (imageId, owner) =>
        this.#call('hold', undefined, () => {
          holds.set(owner, imageId);
          return [{ key: 'k', path: '/images/k', sizeBytes: 1, subdirs: [''] }];
        }),
      releaseGone: (owner) =>
        this.#call('releaseGone', undefined, () => {
          holds.delete(owner);
        }),
      readFile: (_imageId, path) =>
        this.#call('readFile', undefined, () => {
          const text = imageFiles.get(path);
          return text === undefined ? undefined : Buffer.from(text);
        }),
    };
  }

  /** The disk's file is real; making a file system in it is not this suite's matter. */
  #exec(): Exec {
    return {
      run: (ctx) =>
        this.#call('mkfs', ctx, () => ({ exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) })),
    };
  }

  /** Real files, but a dead daemon writes no more. */
  #files(): LogFiles {
    const through = <T>(name: string, effect: () => Promise<T>): Promise<T> =>
      this.#call(`file.${name}`, undefined, effect);
    const guard = (log: OpenLog): OpenLog => ({
      inode: log.inode,
      size: () => through('size', () => log.size()),
      append: (data) => through('append', () => log.append(data)),
      truncate: (bytes) => through('truncate', () => log.truncate(bytes)),
      read: (position, length) => through('read', () => log.read(position, length)),
      close: () => log.close(),
    });
    return {
      open: (path, create) =>
        through('open', async () => {
          const log = await systemLogFiles.open(path, create);
          return log === undefined ? undefined : guard(log);
        }),
      findByInode: (directory, inode) => through('find', () => systemLogFiles.findByInode(directory, inode)),
      readCursor: (path) => through('readCursor', () => systemLogFiles.readCursor(path)),
      writeCursor: (path, text) => through('writeCursor', () => systemLogFiles.writeCursor(path, text)),
      removeGone: (path) => through('remove', () => systemLogFiles.removeGone(path)),
    };
  }
}
