import type { Context } from '../base/context.js';
import type { LayerDevice } from '../model/image.js';
import type { DeviceLocator, VmExit, VmRecord, VmShape } from '../model/vm.js';
import type { PodVm } from '../pod/ports.js';
import type { RunningVm } from './ports.js';

/** Where ip(8) and the CNI plugins look for named namespaces. */
const netnsDirectory = '/run/netns';

/** A pod's VM: the driver's process with the room's record. */
export class ManagedVm implements PodVm {
  readonly record: VmRecord;
  readonly netnsPath: string;
  readonly tap: string;
  readonly agentSocketPath: string;
  readonly exited: Promise<VmExit>;
  readonly #running: RunningVm;

  constructor(record: VmRecord, running: RunningVm) {
    this.record = record;
    this.netnsPath = `${netnsDirectory}/${record.netns}`;
    this.tap = record.tap;
    this.agentSocketPath = running.agentSocketPath;
    this.exited = running.exited;
    this.#running = running;
  }

  async plugNic(ctx: Context, mac: string): Promise<void> {
    await this.#running.plugNic(ctx, mac);
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

  async resize(ctx: Context, size: VmShape): Promise<VmShape> {
    return this.#running.resize(ctx, size);
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
