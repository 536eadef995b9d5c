import { chown, chmod, lstat } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { abortable, background, throwIfDone, underDeadline, withTimeout } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import type { Logger } from '../../base/logger.js';
import type { LayerDevice } from '../../model/image.js';
import type { DeviceLocator, VmShape } from '../../model/vm.js';
import type { DeviceBook, DeviceEntry } from './device-book.js';
import { locatorOf } from './device-book.js';
import { deviceIds, plugDisk, plugFiles, plugNic, removeBackends, unplug } from './device-commands.js';
import type { BackingFile, QmpCommand } from './device-commands.js';
import { checkLayerFile } from './layer-file.js';
import type { QmpEvent, QmpSession } from './qmp-session.js';
import type { LayerDeviceKind } from './settings.js';
import { functionCountMax } from './topology.js';

export interface HotplugOptions {
  readonly session: QmpSession;
  readonly book: DeviceBook;
  /** Makes the book durable; called before each step. */
  readonly save: (json: string) => Promise<void>;
  readonly layerDevice: LayerDeviceKind;
  readonly uid: number;
  readonly tap: string;
  readonly unplugTimeoutMs: number;
  readonly logger: Logger;
}

/** Undoing a failed plug must end too, though the request's own context has ended. */
const undoTimeoutMs = 10_000;
/** The NIC belongs to the pod, not to a container. */
const podOwner = 'pod';
const lockKey = 'plug';
const unplugRetryMs = 2_000;
const unplugTriesMax = 10;

/** Plugs and unplugs the devices of one VM, and keeps the book of them. */
export class Hotplug {
  readonly #options: HotplugOptions;
  readonly #session: QmpSession;
  readonly #book: DeviceBook;
  readonly #lock = new KeyedLock();
  /** Device ids whose removal is awaited, by entry. */
  readonly #leaving = new Map<DeviceEntry, Leaving>();

  constructor(options: HotplugOptions) {
    this.#options = options;
    this.#session = options.session;
    this.#book = options.book;
    this.#session.onEvent((event) => {
      this.#onEvent(event);
    });
  }

  async plugNic(ctx: Context, mac: string): Promise<void> {
    await this.#exclusive(ctx, async () => {
      if (this.#book.plugged('nic', mac) !== undefined) return;
      await this.#plug(ctx, this.#book.add('nic', [mac], podOwner), (entry) =>
        plugNic(entry, this.#options.tap, mac),
      );
    });
  }

  async plugDisk(ctx: Context, owner: string, path: string): Promise<DeviceLocator> {
    await this.#awaitLeft(ctx, path);
    return this.#exclusive(ctx, async () => {
      const there = this.#book.plugged('disk', path);
      if (there !== undefined) {
        if (there.owners.includes(owner)) return locatorOf(there, 0);
        throw new HerkosError('FailedPrecondition', `disk ${path} is plugged already, for another container`);
      }
      await giveDisk(path, this.#options.uid);
      const entry = this.#book.add('disk', [path], owner);
      await this.#plug(ctx, entry, () => plugDisk(entry, path));
      return locatorOf(entry, 0);
    });
  }

  plugPort(_ctx: Context, _owner: string, name: string, _socketPath: string): Promise<void> {
    return Promise.reject(new HerkosError('Unimplemented', `cannot plug port ${name} yet`));
  }

  resize(_ctx: Context, size: VmShape): Promise<VmShape> {
    return Promise.reject(new HerkosError('Unimplemented', `cannot resize to ${JSON.stringify(size)} yet`));
  }

  /** In the order of `layers`. What another owner has plugged is shared. */
  async plugLayers(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]> {
    return this.#exclusive(ctx, async () => {
      const before = this.#book.ownedBy(owner);
      try {
        await this.#plugMissing(ctx, owner, layers);
        await this.#save();
        return layers.map((layer) => this.#locate(layer.key));
      } catch (error) {
        // Only what this call has taken: the owner may hold other layers from an earlier one.
        const taken = this.#book.ownedBy(owner).filter((entry) => !before.includes(entry));
        await this.#release(owner, taken).catch((failure: unknown) => {
          this.#warn('cannot give back layers after a failure', failure);
        });
        throw error;
      }
    });
  }

  /**
   * Gives up what `owner` holds and waits until the guest has let go of what nobody else uses. A guest
   * that does not within the unplug timeout keeps its device, and the port with it, until the VM ends.
   */
  async unplugGone(ctx: Context, owner: string): Promise<void> {
    const leaving = await this.#exclusive(ctx, () => this.#release(owner, this.#book.ownedBy(owner)));
    if (!(await this.#haveLeft(ctx, leaving)))
      this.#options.logger.warn('the guest does not let a device go; its port stays in use', { owner });
  }

  /** After a restart: makes the book agree with what QEMU has, and ends what was half done. */
  async reconcile(ctx: Context): Promise<void> {
    await this.#exclusive(ctx, async () => {
      const present = await this.#presentDevices(ctx);
      for (const entry of this.#book.entries) {
        const ids = deviceIds(entry);
        const there = ids.filter((id) => present.has(id));
        if (entry.state !== 'leaving' && there.length === ids.length) entry.state = 'plugged';
        else await this.#withdraw(entry, there);
      }
      await this.#save();
    });
  }

  describe(): readonly DeviceEntry[] {
    return this.#book.entries;
  }

  /**
   * One change at a time. The caller is let go when its context ends, even if QEMU hangs; what was
   * begun is finished or undone behind it, before the next change.
   */
  async #exclusive<T>(ctx: Context, body: () => Promise<T>): Promise<T> {
    return abortable(ctx, this.#lock.run(ctx, lockKey, body));
  }

  async #plugMissing(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<void> {
    const kind = this.#layerKind;
    const missing = new Map<string, BackingFile>();
    for (const layer of layers) {
      const entry = this.#book.plugged(kind, layer.key);
      if (entry === undefined) missing.set(layer.key, await checkLayerFile(layer));
      else if (!entry.owners.includes(owner)) entry.owners.push(owner);
    }
    const files = [...missing];
    const perEntry = kind === 'nvdimm' ? 1 : functionCountMax;
    for (let at = 0; at < files.length; at += perEntry) {
      const group = files.slice(at, at + perEntry);
      const keys = group.map(([key]) => key);
      await this.#plug(ctx, this.#book.add(kind, keys, owner), (entry) =>
        plugFiles(
          entry,
          group.map(([, file]) => file),
        ),
      );
    }
  }

  get #layerKind(): 'nvdimm' | 'layers' {
    return this.#options.layerDevice === 'nvdimm' ? 'nvdimm' : 'layers';
  }

  #locate(key: string): DeviceLocator {
    const entry = this.#book.plugged(this.#layerKind, key);
    if (entry === undefined) throw new HerkosError('Internal', `layer ${key} is not plugged`);
    return locatorOf(entry, entry.keys.indexOf(key));
  }

  async #plug(
    ctx: Context,
    entry: DeviceEntry,
    commands: (entry: DeviceEntry) => QmpCommand[],
  ): Promise<void> {
    try {
      await this.#save();
      for (const { command, args } of commands(entry)) await this.#session.execute(ctx, command, args);
      entry.state = 'plugged';
      await this.#save();
    } catch (error) {
      await this.#undoPlug(entry);
      throw error;
    }
  }

  /** A command that was given up may still have worked: what QEMU has is asked, not assumed. */
  async #undoPlug(entry: DeviceEntry): Promise<void> {
    entry.state = 'leaving';
    try {
      await underDeadline(background(), undoTimeoutMs, 'undoing a plug', async (ctx) => {
        const present = await this.#presentDevices(ctx);
        await this.#withdraw(
          entry,
          deviceIds(entry).filter((id) => present.has(id)),
        );
      });
    } catch (error) {
      // A dead VM has no devices to undo.
      if (classOf(error) !== 'Unavailable')
        this.#warn('cannot undo a failed plug; its port stays in use', error);
    }
  }

  /** Takes back an entry of which only the devices `there` exist. */
  async #withdraw(entry: DeviceEntry, there: readonly string[]): Promise<void> {
    entry.state = 'leaving';
    entry.owners = [];
    await this.#save();
    if (there.length === 0) await this.#free(entry);
    else if (canUnplug(entry)) this.#startUnplug(entry);
  }

  /** A disk that is still leaving, as after a restart, is locked and cannot be plugged again before it is gone. */
  async #awaitLeft(ctx: Context, path: string): Promise<void> {
    const leaving = this.#book.entries.filter(({ kind, state, keys }) => {
      return kind === 'disk' && state === 'leaving' && keys.includes(path);
    });
    if (!(await this.#haveLeft(ctx, leaving)))
      throw new HerkosError('Unavailable', `the guest has not let go of disk ${path} yet; try again`);
  }

  /** False when the guest has kept one of them for the unplug timeout. */
  async #haveLeft(ctx: Context, leaving: readonly DeviceEntry[]): Promise<boolean> {
    if (leaving.length === 0) return true;
    const gone = Promise.all(leaving.map(async (entry) => this.#leaving.get(entry)?.gone));
    const patience = withTimeout(ctx, this.#options.unplugTimeoutMs, 'unplugging');
    try {
      await abortable(patience, Promise.race([gone, this.#session.lost]));
      return true;
    } catch {
      throwIfDone(ctx);
      return false;
    } finally {
      patience.cancel();
    }
  }

  /** Returns the entries that nobody uses any more and that the guest is asked to let go. */
  async #release(owner: string, entries: readonly DeviceEntry[]): Promise<DeviceEntry[]> {
    const unused: DeviceEntry[] = [];
    for (const entry of entries) {
      entry.owners = entry.owners.filter((other) => other !== owner);
      if (entry.owners.length > 0 || !canUnplug(entry)) continue;
      entry.state = 'leaving';
      unused.push(entry);
    }
    if (entries.length > 0) await this.#save();
    for (const entry of unused) this.#startUnplug(entry);
    return unused;
  }

  #startUnplug(entry: DeviceEntry): void {
    if (this.#leaving.has(entry)) return;
    const leaving = new Leaving(deviceIds(entry));
    this.#leaving.set(entry, leaving);
    void this.#insist(entry, leaving);
  }

  /** Asks until the device is gone: a guest that is still booting loses the request. */
  async #insist(entry: DeviceEntry, leaving: Leaving): Promise<void> {
    const { command, args } = unplug(entry);
    for (let tried = 0; tried < unplugTriesMax && !leaving.isGone; tried += 1) {
      try {
        await this.#session.execute(background(), command, args);
      } catch (error) {
        if (classOf(error) === 'Unavailable') return;
        // Gone before we listened: the daemon before us had asked, or the guest let go by itself.
        if (error instanceof HerkosError && error.reason === 'QMP_DEVICE_NOT_FOUND') this.#onGone(entry);
        else this.#options.logger.debug('QEMU did not take an unplug request', { error: messageOf(error) });
      }
      const pause = withTimeout(background(), unplugRetryMs, 'the guest');
      await abortable(pause, Promise.race([leaving.gone, this.#session.lost])).catch(() => undefined);
      pause.cancel();
    }
  }

  #onEvent(event: QmpEvent): void {
    const id = event.data['device'];
    if (event.name !== 'DEVICE_DELETED' || typeof id !== 'string') return;
    for (const [entry, leaving] of this.#leaving) if (leaving.take(id)) this.#onGone(entry);
  }

  #onGone(entry: DeviceEntry): void {
    const leaving = this.#leaving.get(entry);
    if (leaving === undefined || leaving.isGone) return;
    leaving.isGone = true;
    void this.#lock
      .run(background(), lockKey, () => this.#free(entry))
      .catch((error: unknown) => {
        this.#warn('cannot free a port', error);
      })
      .finally(() => {
        this.#leaving.delete(entry);
        leaving.settle();
      });
  }

  /** The devices are gone: removes what stood behind them and makes the place free. */
  async #free(entry: DeviceEntry): Promise<void> {
    for (const { command, args } of removeBackends(entry)) {
      try {
        await this.#session.execute(background(), command, args);
      } catch (error) {
        if (classOf(error) === 'Unavailable') return;
        // After a plug that failed half way it may never have been there.
        this.#options.logger.debug('no backend to remove', { command, error: messageOf(error) });
      }
    }
    this.#book.remove(entry);
    await this.#save();
  }

  async #presentDevices(ctx: Context): Promise<Set<string>> {
    const listed = await this.#session.execute(ctx, 'qom-list', { path: '/machine/peripheral' });
    const names = Array.isArray(listed) ? listed : [];
    return new Set(
      names.flatMap((item: unknown) =>
        typeof item === 'object' && item !== null && 'name' in item ? [String(item.name)] : [],
      ),
    );
  }

  async #save(): Promise<void> {
    await this.#options.save(this.#book.toJson());
  }

  #warn(message: string, error: unknown): void {
    this.#options.logger.warn(message, { error: messageOf(error) });
  }
}

/**
 * QEMU takes no memory device back ("virtio based memory devices cannot be unplugged", the same for
 * NVDIMM): a layer stays plugged without an owner, and serves the next container that uses it.
 */
function canUnplug(entry: DeviceEntry): boolean {
  return entry.kind === 'disk' || entry.kind === 'nic';
}

/** Devices of one entry that have not gone yet. */
class Leaving {
  isGone = false;
  readonly gone: Promise<void>;
  settle: () => void = () => undefined;
  readonly #ids: Set<string>;

  constructor(ids: readonly string[]) {
    this.#ids = new Set(ids);
    this.gone = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  /** True when `id` was the last one. */
  take(id: string): boolean {
    return this.#ids.delete(id) && this.#ids.size === 0;
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
