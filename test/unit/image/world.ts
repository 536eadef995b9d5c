/** An image room on a real directory with a registry in this process. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { background } from '../../../lib/base/context.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { HttpRegistryClient } from '../../../lib/drivers/registry/registry-client.js';
import { defaultRetry } from '../../../lib/drivers/registry/settings.js';
import { FileRecordStore } from '../../../lib/drivers/store/record-store.js';
import type { LayerConverter } from '../../../lib/image/convert/types.js';
import { ImageService } from '../../../lib/image/image-service.js';
import type { ImageSettings } from '../../../lib/image/settings.js';
import type { ImageRecord } from '../../../lib/model/image.js';
import { countedRegistry } from '../../../lib/observe/counted-registry.js';
import { hostPlatform } from '../../../lib/wire/oci/platform.js';
import type { LayerCompression } from '../../../lib/wire/oci/types.js';
import { FakeLayerConverter } from '../../fakes/layer-converter.js';
import { FakeObserver } from '../../fakes/observer.js';
import { FakeRegistry } from '../../fakes/registry-server.js';
import type { BuiltImage, RunConfig } from '../../tools/image-builder.js';
import { buildImage, buildLayer } from '../../tools/image-builder.js';
import { buildTar } from '../../tools/tar-builder.js';

export class ImageWorld {
  readonly directory: string;
  readonly registry: FakeRegistry;
  readonly converter = new FakeLayerConverter();
  readonly client: HttpRegistryClient;
  readonly observer = new FakeObserver();
  bytesPulled = 0;
  images!: ImageService;

  private constructor(directory: string, registry: FakeRegistry) {
    this.directory = directory;
    this.registry = registry;
    this.client = new HttpRegistryClient({
      hostsDirectory: join(directory, 'registries.d'),
      stallTimeoutMs: 10_000,
      connectTimeoutMs: 5_000,
      version: '0.0.0',
      proxy: { httpProxy: undefined, httpsProxy: undefined, noProxy: '' },
      retry: { ...defaultRetry, delayFirstMs: 1, delayMaxMs: 5 },
    });
  }

  static async open(settings: Partial<ImageSettings> = {}): Promise<ImageWorld> {
    const world = new ImageWorld(await mkdtemp(join(tmpdir(), 'herkos-images-')), await FakeRegistry.start());
    await world.restart(settings);
    await world.images.collectGarbage();
    return world;
  }

  /** A new daemon on the same directory; the old one is forgotten as if it had been killed. */
  async restart(
    settings: Partial<ImageSettings> = {},
    converter: LayerConverter = this.converter,
  ): Promise<void> {
    this.images = new ImageService({
      registry: countedRegistry(this.client, (bytes) => {
        this.bytesPulled += bytes;
      }),
      observer: this.observer,
      converter,
      store: this.store(),
      logger: silentLogger,
      settings: {
        rootDirectory: join(this.directory, 'image'),
        layersAtATime: 3,
        limits: {},
        freeBytesMin: 0,
        platform: hostPlatform(),
        pinnedNames: [],
        ...settings,
      },
    });
    await this.images.load();
  }

  store(): FileRecordStore<ImageRecord> {
    const directory = join(this.directory, 'records');
    return new FileRecordStore<ImageRecord>({ directory, schemaVersion: 1, logger: silentLogger });
  }

  async close(): Promise<void> {
    await this.images.close();
    await this.client.destroy();
    await this.registry.stop();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Serves an image whose layers hold one file each. */
  async serve(
    repository: string,
    tag: string,
    contents: readonly string[],
    run: RunConfig = {},
    compression: LayerCompression = 'gzip',
  ): Promise<BuiltImage> {
    const layers = await Promise.all(
      contents.map(async (content) =>
        buildLayer(background(), buildTar([{ name: 'file', content }]), compression),
      ),
    );
    const image = buildImage(layers, run);
    this.registry.add(repository, tag, image);
    return image;
  }

  name(repositoryAndTag: string): string {
    return `${this.registry.host}/${repositoryAndTag}`;
  }

  async pull(repositoryAndTag: string): Promise<ImageRecord> {
    return this.images.pull(background(), this.name(repositoryAndTag));
  }

  /** Everything in the layer folder. */
  async files(): Promise<string[]> {
    return (await readdir(join(this.directory, 'image', 'layers'))).sort();
  }
}

export function keysOf(record: ImageRecord | undefined): string[] {
  return (record?.devices ?? []).map((device) => device.key).sort();
}
