/**
 * The images of this node. What is on the disk leads: a device file is durable before the record that
 * names it, a record is gone before its files go, and what nothing names is garbage at the next start.
 * Holds are in memory: after a restart the containers that are known hold theirs again, and then
 * `collectGarbage` removes what was kept only for containers that are gone.
 */
import { join } from 'node:path';

import type { CancellableContext, Context } from '../base/context.js';
import { background, throwIfDone, withCancel } from '../base/context.js';
import type { ErrorClass } from '../base/errors.js';
import { HerkosError, classOf, messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { Semaphore } from '../base/semaphore.js';
import type { ImageUsage, Images, PullListener } from '../cri/ports.js';
import type { ImageRecord, LayerDevice } from '../model/image.js';
import type { PodImages } from '../pod/ports.js';
import { familiarBase, formatReference, parseReference } from '../wire/oci/reference.js';
import type { ImageName } from '../wire/oci/types.js';
import type { ArchiveImage } from './archive/archive-image.js';
import { openArchive, sweepScratch } from './archive/open-archive.js';
import { readFileInLayers } from './convert/read-file.js';
import type { LayerConverter } from './convert/types.js';
import { fetchLayers, keysOfPlan, layersToFetch } from './fetch-layers.js';
import { requireSpace } from './free-space.js';
import { planDevices } from './group.js';
import { ImageIndex } from './image-index.js';
import type { Naming } from './image-records.js';
import { ImageRecords, notHere } from './image-records.js';
import { LayerStore } from './layer-store.js';
import type { ImageObserver, ImageSource, ImageStore, RegistryClient, RegistryCredentials } from './ports.js';
import type { ResolvedImage } from './resolve.js';
import { resolveImage } from './resolve.js';
import type { ImageSettings } from './settings.js';
import { devicesPerImageMax } from './settings.js';

export interface ImageParts {
  readonly registry: RegistryClient;
  readonly converter: LayerConverter;
  readonly store: ImageStore;
  readonly logger: Logger;
  readonly settings: ImageSettings;
  readonly observer?: ImageObserver | undefined;
}

const layersFolder = 'layers';
const importFolder = 'import';

export class ImageService implements Images, PodImages {
  readonly #parts: ImageParts;
  readonly #settings: ImageSettings;
  readonly #layers: LayerStore;
  readonly #index = new ImageIndex();
  readonly #records: ImageRecords;
  readonly #turns: Semaphore;
  readonly #working = new Map<Promise<unknown>, CancellableContext>();
  /** Before that, an image that nobody holds may yet be held. */
  #recovered = false;
  #closed = false;

  constructor(parts: ImageParts) {
    const { settings, logger } = parts;
    this.#parts = parts;
    this.#settings = settings;
    this.#layers = new LayerStore(join(settings.rootDirectory, layersFolder), settings.readersGid, logger);
    this.#records = new ImageRecords(this.#index, parts.store, settings.pinnedNames, logger);
    this.#turns = new Semaphore(settings.layersAtATime);
  }

  /** Loads what is there, forgets images whose files are gone, and removes what crashed pulls left. Call it first. */
  async load(): Promise<void> {
    await this.#layers.load();
    await sweepScratch(join(this.#settings.rootDirectory, importFolder));
    await this.#records.load((key) => this.#layers.has(key));
    await this.#collect();
  }

  /** Removes what was kept for containers that are gone. Call it when every known container holds its image again. */
  async collectGarbage(): Promise<void> {
    this.#recovered = true;
    await this.#forgetAbandoned();
  }

  async pull(
    ctx: Context,
    reference: string,
    credentials?: RegistryCredentials,
    progress?: PullListener,
  ): Promise<ImageRecord> {
    const name = parseReference(reference);
    return this.#observed(ctx, async (inner) => {
      const source = this.#parts.registry.open(credentials);
      tellResolving(progress);
      const resolved = await resolveImage(inner, source, name, this.#settings.platform);
      const digest = `${familiarBase(name)}@${resolved.digest}`;
      const naming = { tag: name.tag === undefined ? undefined : formatReference(name), digest };
      return this.#take(inner, source, name, resolved, naming, progress);
    });
  }

  async import(
    ctx: Context,
    path: string,
    name: string | undefined,
    progress?: PullListener,
  ): Promise<ImageRecord[]> {
    if (name !== undefined) parseReference(name);
    return this.#work(ctx, async (inner) => {
      tellResolving(progress);
      const scratch = join(this.#settings.rootDirectory, importFolder);
      const archive = await openArchive(inner, path, scratch, this.#settings.freeBytesMin);
      try {
        const records: ImageRecord[] = [];
        for (const image of archive.images(name))
          records.push(await this.#takeFromArchive(inner, archive.source, image, progress));
        return records;
      } finally {
        await archive.close();
      }
    });
  }

  find(reference: string): ImageRecord | undefined {
    return this.#index.find(reference);
  }

  resolve(reference: string): ImageRecord {
    const record = this.#index.find(reference);
    if (record === undefined) throw notHere(reference);
    return record;
  }

  list(): readonly ImageRecord[] {
    return this.#index.list();
  }

  /** @throws HerkosError `FailedPrecondition` for a pinned image. */
  async remove(_ctx: Context, reference: string): Promise<void> {
    const record = this.#index.find(reference);
    if (record === undefined) return;
    if (record.pinned)
      throw new HerkosError(
        'FailedPrecondition',
        `image ${record.repoTags[0] ?? record.id} is pinned by the configuration`,
      );
    await this.#records.remove(record.id, !this.#recovered);
    await this.#forgetAbandoned();
  }

  async usage(): Promise<ImageUsage> {
    const { usedBytes, inodes } = await this.#layers.usage();
    return { mountpoint: this.#settings.rootDirectory, usedBytes, inodesUsed: inodes };
  }

  parseName(reference: string): ImageName {
    return parseReference(reference);
  }

  /** Calling it again, also after a restart or RemoveImage, gives the same devices. */
  async hold(imageId: string, owner: string): Promise<readonly LayerDevice[]> {
    const devices = await this.#records.hold(imageId, owner);
    const missing = await this.#layers.missing(devices.map((device) => device.key));
    if (missing.length > 0) {
      await this.releaseGone(owner);
      throw new HerkosError(
        'DataLoss',
        `image ${imageId} has lost device files; remove it and pull it again`,
      );
    }
    return devices.map(({ key, subdirs }) => ({
      key,
      path: this.#layers.pathOf(key),
      sizeBytes: this.#layers.sizeOf(key) ?? 0,
      subdirs,
    }));
  }

  async releaseGone(owner: string): Promise<void> {
    this.#index.deleteHold(owner);
    await this.#forgetAbandoned();
  }

  async readFile(imageId: string, path: string, bytesMax: number): Promise<Buffer | undefined> {
    const devices = this.#index.get(imageId)?.devices;
    if (devices === undefined) throw notHere(imageId);
    const unpin = this.#layers.pin(devices.map((device) => device.key));
    try {
      const layers = devices.flatMap(({ key, subdirs }) =>
        subdirs.map((subdir) => ({ path: this.#layers.pathOf(key), subdir })),
      );
      return await readFileInLayers(background(), layers, path, bytesMax);
    } finally {
      unpin();
    }
  }

  /** Stops what is under way, which leaves nothing behind, and takes no more. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const working = [...this.#working];
    for (const [, ctx] of working) ctx.cancel(new HerkosError('Unavailable', 'the daemon is stopping'));
    await Promise.allSettled(working.map(([work]) => work));
  }

  async #observed<T>(ctx: Context, body: (inner: Context) => Promise<T>): Promise<T> {
    const startedMs = performance.now();
    const tell = (outcome: 'OK' | ErrorClass): void =>
      this.#parts.observer?.pullDone(outcome, performance.now() - startedMs);
    try {
      const result = await this.#work(ctx, body);
      tell('OK');
      return result;
    } catch (error) {
      tell(classOf(error));
      throw error;
    }
  }

  async #work<T>(ctx: Context, body: (inner: Context) => Promise<T>): Promise<T> {
    if (this.#closed) throw new HerkosError('Unavailable', 'the daemon is stopping');
    throwIfDone(ctx);
    const inner = withCancel(ctx);
    const work = body(inner);
    this.#working.set(work, inner);
    try {
      return await work;
    } finally {
      this.#working.delete(work);
      inner.cancel();
    }
  }

  async #takeFromArchive(
    ctx: Context,
    source: ImageSource,
    image: ArchiveImage,
    progress: PullListener | undefined,
  ): Promise<ImageRecord> {
    const resolved = await resolveImage(ctx, source, image.lookup, this.#settings.platform);
    // What was put together from a Docker archive has a digest that no registry knows: it is not one to show.
    const base = image.name === undefined || image.synthetic ? undefined : familiarBase(image.name);
    const naming = {
      tag: image.name?.tag === undefined ? undefined : formatReference(image.name),
      digest: base === undefined ? undefined : `${base}@${resolved.digest}`,
    };
    return this.#take(ctx, source, image.lookup, resolved, naming, progress);
  }

  /** Brings a resolved image's files and record onto the disk. */
  async #take(
    ctx: Context,
    source: ImageSource,
    name: ImageName,
    resolved: ResolvedImage,
    naming: Naming,
    progress: PullListener | undefined,
  ): Promise<ImageRecord> {
    const plan = planDevices(resolved.layers, devicesPerImageMax);
    const known = this.#index.get(resolved.id);
    const planned = plan.map((part) => part.device);
    const knownKeys = (known?.devices ?? []).map((device) => device.key);
    const unpin = this.#layers.pin([...keysOfPlan(plan), ...knownKeys]);
    try {
      // Layers compressed in another way may be grouped in another way: what is there is as good.
      const complete = known !== undefined && (await this.#layers.missing(knownKeys)).length === 0;
      if (!complete) {
        await this.#layers.missing(planned.map((device) => device.key));
        const missing = layersToFetch(plan, this.#layers);
        const bytes = missing.reduce((sum, layer) => sum + layer.descriptor.sizeBytes, 0);
        await requireSpace(
          this.#layers.directory,
          bytes,
          missing.length === 0 ? 0 : this.#settings.freeBytesMin,
        );
        const parts = {
          store: this.#layers,
          converter: this.#parts.converter,
          turns: this.#turns,
          limits: { ...this.#settings.limits, freeBytesMin: this.#settings.freeBytesMin },
        };
        await fetchLayers(ctx, parts, { source, name, plan, progress });
      }
      throwIfDone(ctx);
      const record = await this.#records.add(resolved, complete ? known.devices : planned, naming);
      tellDone(progress, resolved);
      return record;
    } finally {
      unpin();
      await this.#collect();
    }
  }

  /** Forgets removed images when the last container that held them is gone, then their files. */
  async #forgetAbandoned(): Promise<void> {
    if (!this.#recovered) return;
    await this.#records.forgetAbandoned();
    await this.#collect();
  }

  /** Garbage is no reason for a call to fail: the next one, or the next start, tries again. */
  async #collect(): Promise<void> {
    try {
      await this.#layers.collect((key) => this.#index.isNeeded(key));
    } catch (error) {
      this.#parts.logger.error('layers that nobody uses could not be removed', { error: messageOf(error) });
    }
  }
}

function tellResolving(progress: PullListener | undefined): void {
  progress?.({ phase: 'resolving', layersTotal: 0, layersDone: 0, bytesTotal: 0, bytesDone: 0 });
}

function tellDone(progress: PullListener | undefined, resolved: ResolvedImage): void {
  const bytes = resolved.layers.reduce((sum, layer) => sum + layer.descriptor.sizeBytes, 0);
  const layers = resolved.layers.length;
  progress?.({ phase: 'done', layersTotal: layers, layersDone: layers, bytesTotal: bytes, bytesDone: bytes });
}
