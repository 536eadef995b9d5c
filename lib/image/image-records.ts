/** What the disk knows of images, in step with the index: the disk first, then memory, one change at a time. */
import { background } from '../base/context.js';
import { HerkosError } from '../base/errors.js';
import { KeyedLock } from '../base/keyed-lock.js';
import type { Logger } from '../base/logger.js';
import type { ImageDevice, ImageRecord } from '../model/image.js';
import { formatReference, parseReference } from '../wire/oci/reference.js';
import type { ImageIndex } from './image-index.js';
import { settleTags } from './image-index.js';
import type { ImageStore } from './ports.js';
import type { ResolvedImage } from './resolve.js';

/** What an image is to be called; both undefined for one that came without a name. */
export interface Naming {
  /** `host/path:tag`. */
  readonly tag: string | undefined;
  /** `host/path@sha256:…`. */
  readonly digest: string | undefined;
}

/** One lock for all records: a re-tag changes two of them. */
const lockKey = 'records';

export class ImageRecords {
  readonly #index: ImageIndex;
  readonly #store: ImageStore;
  readonly #pinned: ReadonlySet<string>;
  readonly #logger: Logger;
  readonly #lock = new KeyedLock();

  constructor(index: ImageIndex, store: ImageStore, pinnedNames: readonly string[], logger: Logger) {
    this.#index = index;
    this.#store = store;
    this.#pinned = new Set(pinnedNames.map((name) => formatReference(parseReference(name))));
    this.#logger = logger;
  }

  /** Fills the index; forgets images that have lost files, so that they are pulled again. */
  async load(hasFile: (key: string) => boolean): Promise<void> {
    const settled = settleTags(await this.#store.loadAll());
    for (const record of settled.changed) await this.#store.put(record);
    for (const record of settled.records) {
      const missing = record.devices.filter((device) => !hasFile(device.key)).length;
      if (missing === 0) {
        this.#index.set({ ...record, pinned: this.#isPinned(record.repoTags) });
        continue;
      }
      this.#logger.warn('an image has lost its device files and is forgotten', { image: record.id, missing });
      await this.#store.delete(record.id);
    }
  }

  /**
   * Records an image whose files are there, or another name of one that is recorded; takes the tag from
   * the image that had it. A crash between these two writes is settled by the next load.
   */
  async add(resolved: ResolvedImage, devices: readonly ImageDevice[], naming: Naming): Promise<ImageRecord> {
    return this.#change(async () => {
      const before = this.#index.get(resolved.id);
      const loser = naming.tag === undefined ? undefined : this.#index.idOfName(naming.tag);
      const repoTags = withName(before?.repoTags, naming.tag);
      const record: ImageRecord = {
        schemaVersion: 1,
        id: resolved.id,
        repoTags,
        repoDigests: withName(before?.repoDigests, naming.digest),
        sizeBytes: resolved.sizeBytes,
        run: resolved.run,
        diffIds: resolved.diffIds,
        devices,
        pinned: this.#isPinned(repoTags),
        pulledAt: new Date().toISOString(),
      };
      await this.#put(record);
      const other = loser === undefined || loser === record.id ? undefined : this.#index.get(loser);
      if (other !== undefined) {
        const left = other.repoTags.filter((tag) => tag !== naming.tag);
        await this.#put({ ...other, repoTags: left, pinned: this.#isPinned(left) });
      }
      return record;
    });
  }

  /** @param keep the record stays, unseen, though nobody is known to hold the image. */
  async remove(id: string, keep: boolean): Promise<void> {
    await this.#change(async () => {
      const record = this.#index.get(id);
      if (record === undefined) return;
      if (keep || this.#index.isHeld(id))
        await this.#put({ ...record, repoTags: [], repoDigests: [], removed: true });
      else await this.#delete(id);
    });
  }

  /** Notes that `owner` keeps the image, unless its removal came first. @throws HerkosError `NotFound`. */
  async hold(imageId: string, owner: string): Promise<readonly ImageDevice[]> {
    return this.#change(() => {
      const record = this.#index.get(imageId);
      if (record === undefined) return Promise.reject(notHere(imageId));
      this.#index.setHold(owner, imageId);
      return Promise.resolve(record.devices);
    });
  }

  /** Deletes the records of removed images that nobody holds any more. */
  async forgetAbandoned(): Promise<void> {
    if (this.#index.abandoned().length === 0) return;
    await this.#change(async () => {
      for (const { id } of this.#index.abandoned()) await this.#delete(id);
    });
  }

  async #change<T>(body: () => Promise<T>): Promise<T> {
    return this.#lock.run(background(), lockKey, body);
  }

  async #put(record: ImageRecord): Promise<void> {
    await this.#store.put(record);
    this.#index.set(record);
  }

  async #delete(id: string): Promise<void> {
    await this.#store.delete(id);
    this.#index.delete(id);
  }

  #isPinned(tags: readonly string[]): boolean {
    return tags.some((tag) => this.#pinned.has(tag));
  }
}

export function notHere(reference: string): HerkosError {
  return new HerkosError('NotFound', `image '${reference.slice(0, 300)}' is not on this node; pull it first`);
}

function withName(names: readonly string[] | undefined, name: string | undefined): readonly string[] {
  const known = names ?? [];
  return name === undefined || known.includes(name) ? known : [...known, name];
}
