/** The images and holds in memory, by everything that names them. Changes here follow what is on the disk. */
import { HerkosError } from '../base/errors.js';
import type { ImageDevice, ImageRecord } from '../model/image.js';
import { isDigest } from '../wire/oci/digest.js';
import { formatReference, parseReference } from '../wire/oci/reference.js';
import { idPrefixLengthMin } from './settings.js';

export class ImageIndex {
  readonly #images = new Map<string, ImageRecord>();
  /** Image ids by tag and by `name@digest`. */
  readonly #names = new Map<string, string>();
  /** Image ids by owner: which container keeps which image. */
  readonly #holds = new Map<string, string>();
  /** Records that name a device file. */
  readonly #uses = new Map<string, number>();

  get(id: string): ImageRecord | undefined {
    return this.#images.get(id);
  }

  /** What clients see. */
  list(): readonly ImageRecord[] {
    return [...this.#images.values()].filter((record) => record.removed !== true);
  }

  /** Images that nobody sees and nobody holds. */
  abandoned(): readonly ImageRecord[] {
    return [...this.#images.values()].filter((record) => record.removed === true && !this.isHeld(record.id));
  }

  set(record: ImageRecord): void {
    this.delete(record.id);
    this.#images.set(record.id, record);
    this.#count(record.devices, 1);
    for (const name of [...record.repoTags, ...record.repoDigests]) this.#names.set(name, record.id);
  }

  delete(id: string): void {
    const record = this.#images.get(id);
    if (record === undefined) return;
    this.#images.delete(id);
    this.#count(record.devices, -1);
    for (const name of [...record.repoTags, ...record.repoDigests])
      if (this.#names.get(name) === id) this.#names.delete(name);
  }

  /** The image that a tag stands for. */
  idOfName(name: string): string | undefined {
    return this.#names.get(name);
  }

  /**
   * By id (with or without `sha256:`), tag, digest or the beginning of an id, in this order.
   * @throws HerkosError `InvalidArgument` when the beginning fits several ids.
   */
  find(reference: string): ImageRecord | undefined {
    const byId = this.#visible(reference) ?? this.#visible(`sha256:${reference}`);
    if (byId !== undefined || isDigest(reference)) return byId;
    const name = canonicalName(reference);
    const id = name === undefined ? undefined : this.#names.get(name);
    return id === undefined ? this.#byPrefix(reference) : this.#visible(id);
  }

  setHold(owner: string, imageId: string): void {
    this.#holds.set(owner, imageId);
  }

  deleteHold(owner: string): void {
    this.#holds.delete(owner);
  }

  isHeld(imageId: string): boolean {
    return [...this.#holds.values()].includes(imageId);
  }

  /** Does a record count on this device file? */
  isNeeded(key: string): boolean {
    return (this.#uses.get(key) ?? 0) > 0;
  }

  #count(devices: readonly ImageDevice[], by: 1 | -1): void {
    for (const { key } of devices) {
      const uses = (this.#uses.get(key) ?? 0) + by;
      if (uses === 0) this.#uses.delete(key);
      else this.#uses.set(key, uses);
    }
  }

  #visible(id: string): ImageRecord | undefined {
    const record = this.#images.get(id);
    return record?.removed === true ? undefined : record;
  }

  #byPrefix(reference: string): ImageRecord | undefined {
    const hex = reference.startsWith('sha256:') ? reference.slice('sha256:'.length) : reference;
    if (hex.length < idPrefixLengthMin || !/^[0-9a-f]+$/.test(hex)) return undefined;
    const found = this.list().filter((record) => record.id.startsWith(`sha256:${hex}`));
    if (found.length > 1)
      throw new HerkosError(
        'InvalidArgument',
        `${String(found.length)} images have an id that begins with ${hex}`,
      );
    return found[0];
  }
}

/** A reference with its defaults filled in, or undefined when it is none. */
function canonicalName(reference: string): string | undefined {
  try {
    return formatReference(parseReference(reference));
  } catch {
    return undefined;
  }
}

/** Tags that two records claim, after a crash between the two writes of a re-tag, belong to the later pull. */
export function settleTags(records: readonly ImageRecord[]): {
  readonly records: ImageRecord[];
  readonly changed: ImageRecord[];
} {
  const owners = new Map<string, ImageRecord>();
  for (const record of records)
    for (const tag of record.repoTags) {
      const other = owners.get(tag);
      if (other === undefined || other.pulledAt < record.pulledAt) owners.set(tag, record);
    }
  const changed: ImageRecord[] = [];
  const settled = records.map((record) => {
    const repoTags = record.repoTags.filter((tag) => owners.get(tag) === record);
    if (repoTags.length === record.repoTags.length) return record;
    const result = { ...record, repoTags };
    changed.push(result);
    return result;
  });
  return { records: settled, changed };
}
