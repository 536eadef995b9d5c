import { chown, chmod, lstat } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import type { LayerDevice } from '../../model/image.js';
import type { DeviceLocator, VmShape } from '../../model/vm.js';
import type { DeviceEntry, DeviceKind } from './device-book.js';
import { locatorOf } from './device-book.js';
import { plugDisk, plugNic, plugSerial } from './device-commands.js';
import { firstCardMac, spareOwner } from './first-card.js';
import { LayerPlugs } from './layer-plugs.js';
import { MachineSize } from './machine-size.js';
import type { MachineSizeOptions } from './machine-size.js';
import { Plugger } from './plugger.js';
import type { PluggerOptions } from './plugger.js';
import { checkSerialPort } from './serial-port.js';
import type { LayerDeviceKind } from './settings.js';

export interface HotplugOptions extends PluggerOptions, MachineSizeOptions {
  readonly layerDevice: LayerDeviceKind;
  readonly uid: number;
  readonly tap: string;
  /** Whether a disk's file may be told to give blocks back; not where holes in files are feigned. */
  readonly disksUnmap: boolean;
}

/** The NIC belongs to the pod, not to a container. */
const podOwner = 'pod';

/** All devices that come and go while one VM runs. */
export class Hotplug {
  readonly #options: HotplugOptions;
  readonly #plugger: Plugger;
  readonly #layers: LayerPlugs;
  readonly #size: MachineSize;

  constructor(options: HotplugOptions) {
    this.#options = options;
    this.#plugger = new Plugger(options);
    this.#layers = new LayerPlugs(this.#plugger, options.layerDevice);
    this.#size = new MachineSize(this.#plugger, options);
  }

  /** @returns the address that the card was plugged with */
  async plugNic(ctx: Context, mac: string): Promise<string> {
    const { book } = this.#plugger;
    return this.#plugger.exclusive(ctx, async () => {
      const there = book.plugged('nic', mac) ?? (await this.#takeSpareNic(mac));
      if (there !== undefined) return there.keys[0] ?? mac;
      const entry = book.add('nic', [mac], podOwner);
      await this.#plugger.plug(ctx, entry, () => plugNic(entry, this.#options.tap, mac));
      return mac;
    });
  }

  /** The address of the card that the machine began with, until a pod takes it. */
  get spareNic(): string | undefined {
    return this.#plugger.book.plugged('nic', firstCardMac)?.owners.includes(spareOwner) === true
      ? firstCardMac
      : undefined;
  }

  async plugDisk(ctx: Context, owner: string, path: string): Promise<DeviceLocator> {
    await this.#awaitLeft(ctx, 'disk', path);
    const { book } = this.#plugger;
    return this.#plugger.exclusive(ctx, async () => {
      const there = book.plugged('disk', path);
      if (there !== undefined) {
        if (there.owners.includes(owner)) return locatorOf(there, 0);
        throw new HerkosError('FailedPrecondition', `disk ${path} is plugged already, for another container`);
      }
      await giveDisk(path, this.#options.uid);
      const entry = book.add('disk', [path], owner);
      await this.#plugger.plug(ctx, entry, () => plugDisk(entry, path, this.#options.disksUnmap));
      return locatorOf(entry, 0);
    });
  }

  /**
   * A serial port of the guest at the other end of `socketPath`, which the VM's user must be able to
   * reach: that is the caller's concern, as is listening there in time.
   */
  async plugPort(ctx: Context, owner: string, name: string, socketPath: string): Promise<void> {
    checkSerialPort(name, socketPath);
    await this.#awaitLeft(ctx, 'serial', name);
    const { book } = this.#plugger;
    await this.#plugger.exclusive(ctx, async () => {
      const there = book.plugged('serial', name);
      if (there !== undefined) {
        if (there.owners.includes(owner) && there.keys[1] === socketPath) return;
        throw new HerkosError(
          'FailedPrecondition',
          `port ${name} is plugged already, for another owner or socket`,
        );
      }
      await this.#plugger.plug(ctx, book.add('serial', [name, socketPath], owner), (entry) =>
        plugSerial(entry, name, socketPath),
      );
    });
  }

  /** In the order of `layers`. What another owner has plugged is shared. */
  async plugLayers(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]> {
    return this.#layers.plug(ctx, owner, layers);
  }

  /** @throws HerkosError `InvalidArgument`, `ResourceExhausted` when the machine has no room for so much */
  async resize(ctx: Context, size: VmShape): Promise<VmShape> {
    return this.#size.resize(ctx, size);
  }

  /** What the guest has now. */
  async size(ctx: Context): Promise<VmShape> {
    return this.#size.current(ctx);
  }

  /**
   * Gives up what `owner` holds and waits until the guest has let go of what nobody else uses. A guest
   * that does not within the unplug timeout keeps its device, and the port with it, until the VM ends.
   */
  async unplugGone(ctx: Context, owner: string): Promise<void> {
    const plugger = this.#plugger;
    const leaving = await plugger.exclusive(ctx, () => plugger.release(owner, plugger.book.ownedBy(owner)));
    if (!(await plugger.haveLeft(ctx, leaving)))
      this.#options.logger.warn('the guest does not let a device go; its port stays in use', { owner });
  }

  /** After a restart: makes the book agree with what QEMU has, and ends what was half done. */
  async reconcile(ctx: Context): Promise<void> {
    await this.#plugger.exclusive(ctx, () => this.#plugger.reconcile(ctx));
  }

  describe(): readonly DeviceEntry[] {
    return this.#plugger.book.entries;
  }

  /** It is known by both addresses from now on. */
  async #takeSpareNic(mac: string): Promise<DeviceEntry | undefined> {
    const { book } = this.#plugger;
    const spare = book.ownedBy(spareOwner).find(({ state }) => state === 'plugged');
    if (spare === undefined) return undefined;
    spare.keys.push(mac);
    spare.owners = [podOwner];
    await this.#plugger.save();
    return spare;
  }

  /** What is still leaving, as after a restart, cannot be plugged again before it is gone. */
  async #awaitLeft(ctx: Context, kind: DeviceKind, key: string): Promise<void> {
    const leaving = this.#plugger.book.ofKind(kind).filter(({ state, keys }) => {
      return state === 'leaving' && keys.includes(key);
    });
    if (!(await this.#plugger.haveLeft(ctx, leaving)))
      throw new HerkosError('Unavailable', `the guest has not let go of ${kind} ${key} yet; try again`);
  }
}

/** The VM's user becomes the owner of its disk, and the only one who may open it. */
async function giveDisk(path: string, uid: number): Promise<void> {
  const info = await lstat(path).catch((error: unknown) => {
    throw new HerkosError('NotFound', `cannot use disk ${path}: ${messageOf(error)}`, { cause: error });
  });
  if (!info.isFile()) throw new HerkosError('InvalidArgument', `disk ${path} is not a regular file`);
  await chown(path, uid, uid);
  await chmod(path, 0o600);
}
