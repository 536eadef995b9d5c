/**
 * What `docker save` wrote before it wrote OCI layouts: `manifest.json` names a config and plain layers by
 * path. A manifest is put together from them, so that the rest of the way is that of any image.
 */
import { createHash } from 'node:crypto';

import type { Context } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { JsonValue } from '../../wire/oci/json-value.js';
import { parseConfig } from '../../wire/oci/config.js';
import { sha256Digest } from '../../wire/oci/digest.js';
import { configBytesMax, layersMax, manifestBytesMax } from '../../wire/oci/manifest.js';
import { mediaTypes } from '../../wire/oci/media-types.js';
import { parseReference } from '../../wire/oci/reference.js';
import type { Descriptor, ImageName } from '../../wire/oci/types.js';
import type { ImageSource } from '../ports.js';
import type { Archive, ArchiveImage } from './archive-image.js';
import type { ArchiveFiles } from './files.js';
import { missing, readSmall } from './files.js';
import { verified } from './oci-layout.js';

export const dockerManifest = 'manifest.json';
const imagesMax = 1024;
const tagsMax = 1024;
const anonymous = { host: 'archive.invalid', repository: 'image' };
const gzipMagic = Buffer.from([0x1f, 0x8b]);

interface SavedImage {
  readonly digest: string;
  readonly tags: readonly string[];
}

export class DockerArchive implements Archive {
  readonly source: ImageSource;
  readonly #files: ArchiveFiles;
  readonly #saved: readonly SavedImage[];

  private constructor(files: ArchiveFiles, saved: readonly SavedImage[], source: ImageSource) {
    this.#files = files;
    this.#saved = saved;
    this.source = source;
  }

  /** Reads the table of images and the digests that it leaves out. */
  static async open(ctx: Context, files: ArchiveFiles): Promise<DockerArchive> {
    const table = JsonValue.parse(
      await readSmall(ctx, files, dockerManifest, manifestBytesMax),
      `${files.what}: manifest.json`,
    );
    const source = new DockerSource(files);
    const saved: SavedImage[] = [];
    for (const entry of table.list(imagesMax)) {
      const digest = await source.add(
        ctx,
        entry.get('Config').string(),
        entry.get('Layers').strings(layersMax),
      );
      saved.push({ digest, tags: entry.get('RepoTags').strings(tagsMax) });
    }
    if (saved.length === 0) throw new HerkosError('NotFound', `${files.what} has no images`);
    return new DockerArchive(files, saved, source);
  }

  images(name: string | undefined): readonly ArchiveImage[] {
    if (name !== undefined && this.#saved.length > 1)
      throw new HerkosError(
        'InvalidArgument',
        `${this.#files.what} has several images; one name does not fit them all`,
      );
    return this.#saved.flatMap(({ digest, tags }): ArchiveImage[] => {
      const names = name === undefined ? tags : [name];
      const lookup = { ...anonymous, tag: undefined, digest };
      if (names.length === 0) return [{ lookup, name: undefined, synthetic: true }];
      return names.map((tag) => ({ lookup, name: parseReference(tag), synthetic: true }));
    });
  }

  async close(): Promise<void> {
    await this.#files.close();
  }
}

class DockerSource implements ImageSource {
  readonly #files: ArchiveFiles;
  readonly #manifests = new Map<string, Buffer>();
  /** Where each blob lies, by digest. */
  readonly #paths = new Map<string, string>();
  readonly #described = new Map<string, Descriptor>();

  constructor(files: ArchiveFiles) {
    this.#files = files;
  }

  /** Makes a manifest for an image and returns its digest. */
  async add(ctx: Context, configPath: string, layerPaths: readonly string[]): Promise<string> {
    const configBytes = await readSmall(ctx, this.#files, configPath, configBytesMax);
    const { diffIds } = parseConfig(configBytes, `${this.#files.what}: ${configPath.slice(0, 100)}`);
    if (diffIds.length !== layerPaths.length)
      throw new HerkosError(
        'FailedPrecondition',
        `${this.#files.what} has ${String(layerPaths.length)} layers and a config for ${String(diffIds.length)}`,
      );
    const config = {
      mediaType: mediaTypes.dockerConfig,
      digest: sha256Digest(configBytes),
      sizeBytes: configBytes.length,
    };
    this.#paths.set(config.digest, configPath);
    const layers: Descriptor[] = [];
    for (const [index, path] of layerPaths.entries())
      layers.push(await this.#describe(ctx, path, diffIds[index] ?? ''));
    const wire = (descriptor: Descriptor): object => ({
      mediaType: descriptor.mediaType,
      digest: descriptor.digest,
      size: descriptor.sizeBytes,
    });
    const document = {
      schemaVersion: 2,
      mediaType: mediaTypes.dockerManifest,
      config: wire(config),
      layers: layers.map(wire),
    };
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = sha256Digest(bytes);
    this.#manifests.set(digest, bytes);
    return digest;
  }

  fetchManifest(_ctx: Context, name: ImageName): Promise<{ descriptor: Descriptor; bytes: Buffer }> {
    const digest = name.digest ?? '';
    const bytes = this.#manifests.get(digest);
    if (bytes === undefined) return Promise.reject(missing(this.#files, `manifest ${digest}`));
    return Promise.resolve({
      descriptor: { mediaType: mediaTypes.dockerManifest, digest, sizeBytes: bytes.length },
      bytes,
    });
  }

  fetchBlob(
    ctx: Context,
    _name: ImageName,
    blob: Descriptor,
    options?: { verify?: boolean },
  ): AsyncIterable<Buffer> {
    const path = this.#paths.get(blob.digest);
    if (path === undefined) throw missing(this.#files, blob.digest);
    return verified(ctx, this.#files, path, blob, options?.verify ?? true);
  }

  /** A plain layer's digest is its diff id, which the conversion checks; a compressed one's must be computed. */
  async #describe(ctx: Context, path: string, diffId: string): Promise<Descriptor> {
    const known = this.#described.get(path);
    if (known !== undefined) return known;
    const sizeBytes = await this.#files.sizeOf(path);
    if (sizeBytes === undefined) throw missing(this.#files, path);
    const compressed = await this.#isGzip(ctx, path);
    const digest = compressed ? await this.#digestOf(ctx, path) : diffId;
    const mediaType = compressed ? mediaTypes.dockerLayerGzip : mediaTypes.dockerLayer;
    const descriptor = { mediaType, digest, sizeBytes };
    this.#paths.set(digest, path);
    this.#described.set(path, descriptor);
    return descriptor;
  }

  async #isGzip(ctx: Context, path: string): Promise<boolean> {
    const iterator = this.#files.read(ctx, path)[Symbol.asyncIterator]();
    const first = await iterator.next();
    await iterator.return?.();
    return first.done !== true && first.value.subarray(0, 2).equals(gzipMagic);
  }

  async #digestOf(ctx: Context, path: string): Promise<string> {
    const hash = createHash('sha256');
    for await (const part of this.#files.read(ctx, path)) hash.update(part);
    return `sha256:${hash.digest('hex')}`;
  }
}
