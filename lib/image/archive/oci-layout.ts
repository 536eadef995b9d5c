/** OCI image layouts (image-spec, image-layout.md), as a directory or in a tar file. */
import { createHash } from 'node:crypto';

import type { Context } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { hexOfDigest, sha256Digest } from '../../wire/oci/digest.js';
import { JsonValue } from '../../wire/oci/json-value.js';
import { manifestBytesMax, parseManifest } from '../../wire/oci/manifest.js';
import { documentKindOf, mediaTypes } from '../../wire/oci/media-types.js';
import { parseReference } from '../../wire/oci/reference.js';
import type { Descriptor, ImageName, IndexEntry } from '../../wire/oci/types.js';
import type { ImageSource } from '../ports.js';
import type { Archive, ArchiveImage } from './archive-image.js';
import type { ArchiveFiles } from './files.js';
import { missing, readSmall } from './files.js';

export const layoutMarker = 'oci-layout';
const layoutBytesMax = 4096;
const refNameKey = 'org.opencontainers.image.ref.name';
/** Docker and containerd write the whole name here and only the tag in ref.name. */
const fullNameKey = 'io.containerd.image.name';
/** Images that nothing names are looked up under this. */
const anonymous = { host: 'archive.invalid', repository: 'image' };

export class OciLayout implements Archive {
  readonly source: ImageSource;
  readonly #files: ArchiveFiles;
  readonly #entries: readonly IndexEntry[];

  private constructor(files: ArchiveFiles, entries: readonly IndexEntry[]) {
    this.#files = files;
    this.#entries = entries;
    this.source = new LayoutSource(files);
  }

  /** @throws HerkosError `FailedPrecondition` for what is no layout of version 1. */
  static async open(ctx: Context, files: ArchiveFiles): Promise<OciLayout> {
    const marker = JsonValue.parse(
      await readSmall(ctx, files, layoutMarker, layoutBytesMax),
      `${files.what}: oci-layout`,
    );
    const version = marker.get('imageLayoutVersion').string();
    if (!version.startsWith('1.'))
      throw new HerkosError(
        'FailedPrecondition',
        `${files.what} is a layout of version ${version.slice(0, 20)}; 1.x is read`,
      );
    const bytes = await readSmall(ctx, files, 'index.json', manifestBytesMax);
    const index = parseManifest(bytes, mediaTypes.ociIndex, `${files.what}: index.json`);
    if (index.kind !== 'index')
      throw new HerkosError('FailedPrecondition', `${files.what}: index.json is no index`);
    const entries = index.manifests.filter(
      (entry) => !entry.artifact && documentKindOf(entry.mediaType) !== undefined,
    );
    if (entries.length === 0) throw new HerkosError('NotFound', `${files.what} has no images`);
    return new OciLayout(files, entries);
  }

  images(name: string | undefined): readonly ArchiveImage[] {
    if (name !== undefined && new Set(this.#entries.map((entry) => entry.digest)).size > 1)
      throw new HerkosError(
        'InvalidArgument',
        `${this.#files.what} has several images; one name does not fit them all`,
      );
    const given = name === undefined ? undefined : parseReference(name);
    return this.#entries.map((entry) => ({
      lookup: { ...anonymous, tag: undefined, digest: entry.digest },
      name: given ?? this.#nameOf(entry),
      synthetic: false,
    }));
  }

  async close(): Promise<void> {
    await this.#files.close();
  }

  #nameOf(entry: IndexEntry): ImageName | undefined {
    const full = entry.annotations[fullNameKey];
    if (full !== undefined) return parseReference(full);
    const ref = entry.annotations[refNameKey];
    if (ref === undefined) return undefined;
    if (/[/:]/.test(ref)) return parseReference(ref);
    throw new HerkosError(
      'InvalidArgument',
      `${this.#files.what} names its image only by the tag '${ref.slice(0, 128)}'; say what to call it`,
    );
  }
}

/** Blobs by digest out of `blobs/sha256`; whatever name is asked for. */
class LayoutSource implements ImageSource {
  readonly #files: ArchiveFiles;

  constructor(files: ArchiveFiles) {
    this.#files = files;
  }

  async fetchManifest(ctx: Context, name: ImageName): Promise<{ descriptor: Descriptor; bytes: Buffer }> {
    if (name.digest === undefined) throw new HerkosError('Internal', 'an archive is asked by digest');
    const bytes = await readSmall(ctx, this.#files, blobPath(name.digest), manifestBytesMax);
    if (sha256Digest(bytes) !== name.digest)
      throw new HerkosError(
        'DataLoss',
        `${this.#files.what}: the manifest ${name.digest} has another digest`,
        {
          reason: 'IMAGE_DIGEST_MISMATCH',
        },
      );
    return { descriptor: { mediaType: '', digest: name.digest, sizeBytes: bytes.length }, bytes };
  }

  fetchBlob(
    ctx: Context,
    _name: ImageName,
    blob: Descriptor,
    options?: { verify?: boolean },
  ): AsyncIterable<Buffer> {
    return verified(ctx, this.#files, blobPath(blob.digest), blob, options?.verify ?? true);
  }
}

function blobPath(digest: string): string {
  return `blobs/sha256/${hexOfDigest(digest)}`;
}

/** A file of an archive as the blob it claims to be. @throws HerkosError `DataLoss` at the end when it is not. */
export async function* verified(
  ctx: Context,
  files: ArchiveFiles,
  path: string,
  blob: Descriptor,
  verify: boolean,
): AsyncGenerator<Buffer, void, void> {
  const size = await files.sizeOf(path);
  if (size === undefined) throw missing(files, path);
  if (size !== blob.sizeBytes)
    throw new HerkosError(
      'DataLoss',
      `${files.what}: ${path} has ${String(size)} bytes, the manifest says ${String(blob.sizeBytes)}`,
    );
  const hash = verify ? createHash('sha256') : undefined;
  for await (const part of files.read(ctx, path)) {
    hash?.update(part);
    yield part;
  }
  if (hash !== undefined && hash.digest('hex') !== hexOfDigest(blob.digest))
    throw new HerkosError('DataLoss', `${files.what}: ${path} has another digest than the manifest says`, {
      reason: 'IMAGE_DIGEST_MISMATCH',
    });
}
