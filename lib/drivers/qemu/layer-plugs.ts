import type { Context } from '../../base/context.js';
import { throwIfDone } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import type { LayerDevice } from '../../model/image.js';
import type { DeviceLocator } from '../../model/vm.js';
import { locatorOf } from './device-book.js';
import { plugFiles } from './device-commands.js';
import type { BackingFile } from './device-commands.js';
import { checkLayerFile } from './layer-file.js';
import type { Plugger } from './plugger.js';
import type { LayerDeviceKind } from './settings.js';
import { functionCountMax } from './topology.js';

/** The image layers of one VM: shared between containers, and kept, as QEMU takes none of them back. */
export class LayerPlugs {
  readonly #plugger: Plugger;
  readonly #kind: 'nvdimm' | 'layers';

  constructor(plugger: Plugger, device: LayerDeviceKind) {
    this.#plugger = plugger;
    this.#kind = device === 'nvdimm' ? 'nvdimm' : 'layers';
  }

  /** In the order of `layers`. What another owner has plugged is shared. */
  async plug(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]> {
    const { book } = this.#plugger;
    return this.#plugger.exclusive(ctx, async () => {
      const before = book.ownedBy(owner);
      try {
        await this.#plugMissing(ctx, owner, layers);
        await this.#plugger.save();
        return layers.map((layer) => this.#locate(layer.key));
      } catch (error) {
        // Only what this call has taken: the owner may hold other layers from an earlier one.
        const taken = book.ownedBy(owner).filter((entry) => !before.includes(entry));
        await this.#plugger.release(owner, taken).catch((failure: unknown) => {
          this.#plugger.warn('cannot give back layers after a failure', failure);
        });
        throw error;
      }
    });
  }

  async #plugMissing(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<void> {
    const { book } = this.#plugger;
    const missing = new Map<string, BackingFile>();
    for (const layer of layers) {
      const entry = book.plugged(this.#kind, layer.key);
      if (entry === undefined) missing.set(layer.key, await checkLayerFile(layer));
      else if (!entry.owners.includes(owner)) entry.owners.push(owner);
    }
    const files = [...missing];
    const perEntry = this.#kind === 'nvdimm' ? 1 : functionCountMax;
    for (let at = 0; at < files.length; at += perEntry) {
      const group = files.slice(at, at + perEntry);
      const keys = group.map(([key]) => key);
      throwIfDone(ctx);
      await this.#plugger.plug(ctx, book.add(this.#kind, keys, owner), (entry) =>
        plugFiles(
          entry,
          group.map(([, file]) => file),
        ),
      );
    }
    // Finished behind a caller that has left: nobody owns them then.
    throwIfDone(ctx);
  }

  #locate(key: string): DeviceLocator {
    const entry = this.#plugger.book.plugged(this.#kind, key);
    if (entry === undefined) throw new HerkosError('Internal', `layer ${key} is not plugged`);
    return locatorOf(entry, entry.keys.indexOf(key));
  }
}
