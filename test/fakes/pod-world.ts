/**
 * The world around the pod room, in memory: VMs, networks, images, records. It outlives the daemons that
 * work on it; each daemon gets its own `incarnation`, which can be killed between any two calls, after
 * which nothing of it does anything any more.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import type { Context } from '../../lib/base/context.js';
import { abortable } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import type { Exec } from '../../lib/base/exec.js';
import { silentLogger } from '../../lib/base/logger.js';
import type { Logger } from '../../lib/base/logger.js';
import type { ContainerRecord } from '../../lib/model/container.js';
import type { ImageRecord } from '../../lib/model/image.js';
import type { SandboxRecord } from '../../lib/model/sandbox.js';
import type { DeviceLocator, VmExit } from '../../lib/model/vm.js';
import { systemLogFiles } from '../../lib/pod/output/files.js';
import type { LogFiles, OpenLog } from '../../lib/pod/output/files.js';
import { PodService } from '../../lib/pod/pods.js';
import type { Guest, GuestExecResult, PodVm, RecordStore } from '../../lib/pod/ports.js';
import type { PodParts } from '../../lib/pod/room.js';
import type { PodDeadlines } from '../../lib/pod/settings.js';
import { defaultDeadlines } from '../../lib/pod/settings.js';
import { FakeGuestState } from './pod-guest.js';
import { testImage } from './pod-configs.js';

/** Short enough for tests of what takes too long, long enough for a busy machine to do what does not. */
export const testDeadlines: PodDeadlines = { ...defaultDeadlines, retryFirstMs: 5, retryMaxMs: 20 };

export type FailureKind =
  /** Fails, nothing is done. */
  | 'before'
  /** Is done, and fails nevertheless. */
  | 'after'
  /** Does nothing until its context ends. */
  | 'hang'
  /** Does nothing, and does not stop when its context ends either. */
  | 'stuck';

export class FakeVm {
  readonly plugged = new Map<string, string[]>();
  readonly guest = new FakeGuestState();
  readonly nics: string[] = [];
  readonly exited: Promise<VmExit>;
  isAlive = true;
  readonly connections = new Set<() => void>();
  #resolveExited: (exit: VmExit) => void = () => undefined;

  constructor(readonly id: string) {
    this.exited = new Promise((resolve) => {
      this.#resolveExited = resolve;
    });
  }

  die(lastWords = ''): void {
    this.isAlive = false;
    this.dropConnections();
    this.#resolveExited({ signal: 'SIGKILL', lastWords });
  }

  dropConnections(): void {
    for (const drop of [...this.connections]) drop();
  }
}

export class FakeWorld {
  readonly sandboxes = new Map<string, SandboxRecord>();
  readonly containers = new Map<string, ContainerRecord>();
  readonly vms = new Map<string, FakeVm>();
  readonly networks = new Set<string>();
  readonly holds = new Map<string, string>();
  readonly images = new Map<string, ImageRecord>([['busybox', testImage]]);
  readonly imageFiles = new Map<string, string>();
  execResult: GuestExecResult = { exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
  readonly execs: { readonly containerId: string; readonly process: unknown }[] = [];
  /** Changes one of these to provoke what takes too long. */
  deadlines: PodDeadlines = testDeadlines;
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<FakeWorld> {
    return new FakeWorld(await mkdtemp(join(tmpdir(), 'herkos-pods-')));
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  get logDirectory(): string {
    return join(this.directory, 'logs');
  }

  get stateDirectory(): string {
    return join(this.directory, 'state');
  }

  vm(sandboxId: string): FakeVm {
    const vm = this.vms.get(sandboxId);
    if (vm === undefined) throw new Error(`there is no VM ${sandboxId}`);
    return vm;
  }

  /** A daemon on this world, its records read and everything recovered. */
  async daemon(log: Logger = silentLogger): Promise<Incarnation> {
    const incarnation = new Incarnation(this, log);
    await incarnation.pods.load();
    await incarnation.pods.recover();
    return incarnation;
  }
}

/** One daemon's life on the world. */
export class Incarnation {
  readonly pods: PodService;
  /** Names of all calls, in order. */
  readonly calls: string[] = [];
  readonly #world: FakeWorld;
  readonly #failures: { readonly call: string; readonly kind: FailureKind; skip: number }[] = [];
  #isAlive = true;
  #dieAfterCall: number | undefined;
  #died: () => void = () => undefined;

  constructor(world: FakeWorld, log: Logger) {
    this.#world = world;
    this.pods = new PodService(this.#parts(log));
  }

  /** The `skip`+1st call of this name from now on fails. */
  fail(call: string, kind: FailureKind = 'before', skip = 0): void {
    this.#failures.push({ call, kind, skip });
  }

  /** Dies when `count` more calls have had their effect; resolves then. */
  dieAfter(count: number): Promise<void> {
    this.#dieAfterCall = this.calls.length + count;
    return new Promise((resolve) => {
      this.#died = resolve;
    });
  }

  /** As `kill -9`: nothing that was asked for from now on happens, nothing is answered. */
  async kill(): Promise<void> {
    this.#isAlive = false;
    // What the kernel was already doing for it is done.
    await wait(10);
  }

  /** Connections of the dead daemon end, as its sockets do. */
  static closeConnections(world: FakeWorld): void {
    for (const vm of world.vms.values()) vm.dropConnections();
  }

  /** Every call from the room to the world goes through here. */
  async call<T>(name: string, ctx: Context | undefined, effect: () => T | Promise<T>): Promise<T> {
    if (!this.#isAlive) return new Promise<T>(() => undefined);
    this.calls.push(name);
    const failure = this.#takeFailure(name);
    await new Promise((resolve) => setImmediate(resolve));
    if (failure === 'stuck') return new Promise<T>(() => undefined);
    if (failure === 'hang') return abortable(ctx ?? neverEnding(), new Promise<T>(() => undefined));
    if (ctx?.signal.aborted === true) throw ctx.signal.reason;
    if (failure === 'before') throw injected(name);
    const order = this.calls.length;
    const result = await effect();
    if (this.#dieAfterCall !== undefined && order >= this.#dieAfterCall && this.isAlive()) {
      await this.kill();
      this.#died();
    }
    if (!this.isAlive()) return new Promise<T>(() => undefined);
    if (failure === 'after') throw injected(name);
    return result;
  }

  isAlive(): boolean {
    return this.#isAlive;
  }

  #takeFailure(name: string): FailureKind | undefined {
    const index = this.#failures.findIndex((one) => one.call === name);
    const failure = this.#failures[index];
    if (failure === undefined) return undefined;
    if (failure.skip > 0) {
      failure.skip -= 1;
      return undefined;
    }
    this.#failures.splice(index, 1);
    return failure.kind;
  }

  #parts(log: Logger): PodParts {
    const world = this.#world;
    return {
      log,
      stores: {
        sandboxes: this.#store('sandbox', world.sandboxes),
        containers: this.#store('container', world.containers),
      },
      vms: this.#vms(),
      network: this.#network(),
      images: this.#images(),
      guests: {
        connect: (ctx, socket) => this.call('connect', ctx, () => this.#connect(ctx, world.vm(socket))),
      },
      exec: this.#exec(),
      files: this.#files(),
      sizing: () => ({ vcpus: 1, memoryMib: 256 }),
      settings: {
        stateDirectory: world.stateDirectory,
        writableDiskBytes: 64 * 1024 * 1024,
        shmBytes: 64 * 1024 * 1024,
        resolvConfPath: join(world.directory, 'resolv.conf'),
        deadlines: world.deadlines,
      },
    };
  }

  #store<T extends { readonly id: string }>(kind: string, records: Map<string, T>): RecordStore<T> {
    return {
      loadAll: () =>
        this.call(`${kind}.loadAll`, undefined, () =>
          [...records.values()].map((one) => structuredClone(one)),
        ),
      put: (record) => {
        const copy = structuredClone(record);
        return this.call(`${kind}.put`, undefined, () => {
          records.set(copy.id, copy);
        });
      },
      delete: (id) =>
        this.call(`${kind}.delete`, undefined, () => {
          records.delete(id);
        }),
    };
  }

  #vms(): PodParts['vms'] {
    const { vms } = this.#world;
    return {
      acquire: (ctx, { sandboxId }) =>
        this.call('acquire', ctx, () => {
          const vm = new FakeVm(sandboxId);
          vms.set(sandboxId, vm);
          return this.#podVm(vm);
        }),
      adopt: (ctx, id) =>
        this.call('adopt', ctx, () => {
          const vm = vms.get(id);
          return vm?.isAlive === true ? this.#podVm(vm) : undefined;
        }),
      destroyGone: (ctx, id) =>
        this.call('destroyGone', ctx, () => {
          vms.get(id)?.die();
          vms.delete(id);
        }),
      sweep: (ctx, known) =>
        this.call('sweep', ctx, () => {
          const found = [...vms.keys()].filter((id) => !known.has(id));
          for (const id of found) {
            vms.get(id)?.die();
            vms.delete(id);
          }
          return found;
        }),
    };
  }

  #podVm(vm: FakeVm): PodVm {
    const use = <T>(name: string, ctx: Context, effect: () => T): Promise<T> =>
      this.call(name, ctx, () => {
        if (!vm.isAlive) throw new HerkosError('Unavailable', 'the virtual machine is gone');
        return effect();
      });
    const plug = (owner: string, path: string): DeviceLocator => {
      const devices = vm.plugged.get(owner) ?? [];
      devices.push(path);
      vm.plugged.set(owner, devices);
      return { kind: 'pci', rootPort: `${String(devices.length)}.0`, function: 0 };
    };
    return {
      record: {
        schemaVersion: 1,
        id: vm.id,
        driver: 'fake',
        shape: { vcpus: 1, memoryMib: 256 },
        accelerator: 'tcg',
        source: 'cold',
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
      plugNic: (ctx, mac) =>
        use('plugNic', ctx, () => {
          vm.nics.push(mac);
        }),
      plugLayers: (ctx, owner, layers) =>
        use('plugLayers', ctx, () => layers.map((layer) => plug(owner, layer.path))),
      plugDisk: (ctx, owner, path) => use('plugDisk', ctx, () => plug(owner, path)),
      unplugGone: (ctx, owner) =>
        use('unplugGone', ctx, () => {
          vm.plugged.delete(owner);
        }),
      powerDown: (ctx) => use('powerDown', ctx, () => undefined),
      kill: (ctx) =>
        this.call('kill', ctx, () => {
          vm.die();
        }),
    };
  }

  #connect(ctx: Context, vm: FakeVm): Promise<Guest> {
    if (!vm.isAlive) throw new HerkosError('Unavailable', 'the virtual machine is gone');
    if (vm.guest.frozen) return abortable(ctx, new Promise<Guest>(() => undefined));
    const connection = new AbortController();
    const lost = new Promise<void>((resolve) => {
      connection.signal.addEventListener('abort', () => {
        resolve();
      });
    });
    const drop = (): void => {
      vm.connections.delete(drop);
      connection.abort(new HerkosError('Unavailable', 'the connection to the guest is lost'));
    };
    vm.connections.add(drop);
    return Promise.resolve(this.#guest(vm, connection.signal, lost, drop));
  }

  #guest(vm: FakeVm, connection: AbortSignal, lost: Promise<void>, drop: () => void): Guest {
    const state = vm.guest;
    /** A context that also ends with the connection. */
    const link = (ctx: Context): Context => ({ ...ctx, signal: AbortSignal.any([ctx.signal, connection]) });
    const use = <T>(name: string, ctx: Context, effect: () => T): Promise<T> => {
      const linked = link(ctx);
      if (state.frozen) return abortable(linked, new Promise<T>(() => undefined));
      return abortable(linked, this.call(`guest.${name}`, linked, effect));
    };
    return {
      info: {
        agentVersion: '1',
        kernelRelease: '6.1.0-fake',
        ociRuntimeVersion: '1',
        bootMs: 1,
        memoryBytes: 1,
        cpus: 1,
      },
      lost,
      setupPod: (ctx, setup) =>
        use('setupPod', ctx, () => {
          state.setup = setup;
        }),
      createContainer: (ctx, request) =>
        use('createContainer', ctx, () => {
          state.create(request);
        }),
      startContainer: (ctx, id) =>
        use('startContainer', ctx, () => {
          state.container(id).start();
        }),
      signalContainer: (ctx, id, signal) =>
        use('signalContainer', ctx, () => {
          state.container(id).signal(signal);
        }),
      removeContainerGone: (ctx, id) =>
        use('removeContainer', ctx, () => {
          state.remove(id);
        }),
      listContainers: (ctx) => use('listContainers', ctx, () => state.list()),
      watchExits: (ctx) => state.watchExits(link(ctx)),
      readOutput: (ctx, id, stream, from) => state.container(id).stream(stream).read(link(ctx), from),
      exec: (ctx, request) =>
        use('exec', ctx, () => {
          this.#world.execs.push({
            containerId: request.containerId,
            process: JSON.parse(request.ociProcess.toString()) as unknown,
          });
          return this.#world.execResult;
        }),
      shutdown: (ctx) =>
        use('shutdown', ctx, () => {
          vm.die();
        }),
      close: () => {
        drop();
        return Promise.resolve();
      },
    };
  }

  #network(): PodParts['network'] {
    const { networks } = this.#world;
    return {
      attach: (ctx, { sandboxId }) =>
        this.call('attach', ctx, () => {
          networks.add(sandboxId);
          return {
            ips: ['10.1.2.3', 'fd00::3'],
            interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1500, addresses: [], routes: [] }],
          };
        }),
      detachGone: (ctx, { sandboxId }) =>
        this.call('detachGone', ctx, () => {
          networks.delete(sandboxId);
        }),
      collectGarbage: (ctx, known) =>
        this.call('collectGarbage', ctx, () => {
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
        this.call('hold', undefined, () => {
          holds.set(owner, imageId);
          return [{ key: 'k', path: '/images/k', sizeBytes: 1, subdirs: [''] }];
        }),
      releaseGone: (owner) =>
        this.call('releaseGone', undefined, () => {
          holds.delete(owner);
        }),
      readFile: (_imageId, path) =>
        this.call('readFile', undefined, () => {
          const text = imageFiles.get(path);
          return text === undefined ? undefined : Buffer.from(text);
        }),
    };
  }

  /** The disk's file is real; making a file system in it is not this suite's matter. */
  #exec(): Exec {
    return {
      run: (ctx) =>
        this.call('mkfs', ctx, () => ({ exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) })),
    };
  }

  /** Real files, but a dead daemon writes no more. */
  #files(): LogFiles {
    const through = <T>(name: string, effect: () => Promise<T>): Promise<T> =>
      this.call(`file.${name}`, undefined, effect);
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

function injected(name: string): HerkosError {
  return new HerkosError('Internal', `injected failure of ${name}`);
}

function neverEnding(): Context {
  return { signal: new AbortController().signal, deadlineMs: Number.POSITIVE_INFINITY };
}
