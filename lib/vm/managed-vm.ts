import type { Context } from '../base/context.js';
import type { LayerDevice } from '../model/image.js';
import type { DeviceLocator, VmExit, VmRecord, VmShape } from '../model/vm.js';
import type { PodVm } from '../pod/ports.js';
import type { MachineReport, RunningVm, TemplateImage } from './ports.js';

/** Where ip(8) and the CNI plugins look for named namespaces. */
const netnsDirectory = '/run/netns';

/** What a VM needs of whoever keeps its record and its process's cgroup. */
export interface VmKeeper {
  /** The VM may become so big from now on; resolves when that is on disk. */
  allow(shapeMax: VmShape): Promise<void>;
  /** Of the process's cgroup, for a guest of that size. */
  setLimits(ctx: Context, size: VmShape): Promise<void>;
}

/** A pod's VM: the driver's process with the room's record. */
export class ManagedVm implements PodVm {
  /** As it is on disk. */
  record: VmRecord;
  readonly netnsPath: string;
  readonly tap: string;
  readonly agentSocketPath: string;
  readonly exited: Promise<VmExit>;
  readonly #running: RunningVm;
  readonly #keeper: VmKeeper;

  constructor(record: VmRecord, running: RunningVm, keeper: VmKeeper) {
    this.record = record;
    this.#keeper = keeper;
    this.netnsPath = `${netnsDirectory}/${record.netns}`;
    this.tap = record.tap;
    this.agentSocketPath = running.agentSocketPath;
    this.exited = running.exited;
    this.#running = running;
  }

  async plugNic(ctx: Context, mac: string): Promise<string> {
    return this.#running.plugNic(ctx, mac);
  }

  get spareNic(): string | undefined {
    return this.#running.spareNic;
  }

  async plugLayers(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]> {
    return this.#running.plugLayers(ctx, owner, layers);
  }

  async plugDisk(ctx: Context, owner: string, path: string): Promise<DeviceLocator> {
    return this.#running.plugDisk(ctx, owner, path);
  }

  async unplugGone(ctx: Context, owner: string): Promise<void> {
    await this.#running.unplugGone(ctx, owner);
  }

  async plugPort(ctx: Context, owner: string, name: string, socketPath: string): Promise<void> {
    await this.#running.plugPort(ctx, owner, name, socketPath);
  }

  /**
   * The process's own limits grow before the guest does, and shrink to what it has really given back: what
   * it gives back later they follow at the next call. A process that says it has more than it was ever to have
   * was taken over by its guest: it gets no room for that.
   */
  async resize(ctx: Context, size: VmShape): Promise<VmShape> {
    // Asked, not remembered: a daemon before this one may have changed it.
    const now = await this.size(ctx);
    const { shape, shapeMax = shape } = this.record;
    const most = each(Math.max, shapeMax, size);
    if (most.vcpus > shapeMax.vcpus || most.memoryMib > shapeMax.memoryMib) await this.#keeper.allow(most);
    await this.#keeper.setLimits(ctx, each(Math.min, most, each(Math.max, size, now)));
    const taken = await this.#running.resize(ctx, size);
    await this.#keeper.setLimits(ctx, each(Math.min, most, taken));
    return taken;
  }

  async size(ctx: Context): Promise<VmShape> {
    return (await this.#running.describe(ctx)).size;
  }

  async pause(ctx: Context): Promise<void> {
    await this.#running.pause(ctx);
  }

  async resume(ctx: Context): Promise<void> {
    await this.#running.resume(ctx);
  }

  async saveTemplate(ctx: Context, image: TemplateImage): Promise<void> {
    await this.#running.saveTemplate(ctx, image);
  }

  async describe(ctx: Context): Promise<MachineReport> {
    return this.#running.describe(ctx);
  }

  async powerDown(ctx: Context): Promise<void> {
    await this.#running.powerDown(ctx);
  }

  async kill(ctx: Context): Promise<void> {
    await this.#running.kill(ctx);
  }

  async release(): Promise<void> {
    await this.#running.release();
  }
}

function each(choose: (one: number, other: number) => number, one: VmShape, other: VmShape): VmShape {
  return { vcpus: choose(one.vcpus, other.vcpus), memoryMib: choose(one.memoryMib, other.memoryMib) };
}
