/** The image room as the daemon builds it: real converter, real client, files. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { HttpRegistryClient } from '../../../lib/drivers/registry/registry-client.js';
import { defaultRetry } from '../../../lib/drivers/registry/settings.js';
import { FileRecordStore } from '../../../lib/drivers/store/record-store.js';
import { WorkerLayerConverter } from '../../../lib/image/convert/converter.js';
import { ImageService } from '../../../lib/image/image-service.js';
import type { ImageRecord } from '../../../lib/model/image.js';
import { hostPlatform } from '../../../lib/wire/oci/platform.js';

export interface ImageParts {
  readonly images: ImageService;
  close(): Promise<void>;
}

/** A service over `directory`, loaded. */
export async function openImages(directory: string): Promise<ImageParts> {
  const registry = new HttpRegistryClient({
    hostsDirectory: join(directory, 'registries.d'),
    stallTimeoutMs: 10_000,
    connectTimeoutMs: 5_000,
    version: '0.0.0',
    proxy: { httpProxy: undefined, httpsProxy: undefined, noProxy: '' },
    retry: { ...defaultRetry, delayFirstMs: 5, delayMaxMs: 50 },
  });
  const converter = new WorkerLayerConverter({ threadsMax: 2 });
  const images = new ImageService({
    registry,
    converter,
    store: new FileRecordStore<ImageRecord>({
      directory: join(directory, 'records'),
      schemaVersion: 1,
      logger: silentLogger,
    }),
    logger: silentLogger,
    settings: {
      rootDirectory: join(directory, 'image'),
      layersAtATime: 3,
      limits: {},
      freeBytesMin: 0,
      platform: hostPlatform(),
      pinnedNames: [],
    },
  });
  await images.load();
  return {
    images,
    async close(): Promise<void> {
      await images.close();
      await converter.close();
      await registry.destroy();
    },
  };
}

export async function layerFiles(directory: string): Promise<string[]> {
  return (await readdir(join(directory, 'image', 'layers')).catch(() => [])).sort();
}

export async function temporaryDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'herkos-images-'));
}

/** A small file system of its own, so that a full disk is nobody else's. */
export async function mountSmallDisk(bytes: number): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await temporaryDirectory();
  const ctx = background();
  await systemExec.run(ctx, 'mount', ['-t', 'tmpfs', '-o', `size=${String(bytes)}`, 'herkos-test', path]);
  return {
    path,
    async remove(): Promise<void> {
      await systemExec.run(ctx, 'umount', [path]);
      await rm(path, { recursive: true, force: true });
    },
  };
}
