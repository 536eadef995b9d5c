/** From a name to everything that is to be fetched, all of it small: manifests and the config. */
import type { Context } from '../base/context.js';
import { underDeadline } from '../base/context.js';
import { HerkosError } from '../base/errors.js';
import type { ImageRunConfig } from '../model/image.js';
import { parseConfig } from '../wire/oci/config.js';
import { sha256Digest } from '../wire/oci/digest.js';
import { configBytesMax, parseManifest } from '../wire/oci/manifest.js';
import { choosePlatform, requirePlatform } from '../wire/oci/platform.js';
import { formatReference } from '../wire/oci/reference.js';
import type { Descriptor, ImageConfig, ImageManifest, ImageName, Platform } from '../wire/oci/types.js';
import type { Layer } from './group.js';
import type { ImageSource } from './ports.js';
import { configTimeoutMs, indexDepthMax } from './settings.js';

export interface ResolvedImage {
  /** Digest of the manifest or index that the name stands for. */
  readonly digest: string;
  /** `sha256:…` of the config: the image's id. */
  readonly id: string;
  readonly sizeBytes: number;
  readonly run: ImageRunConfig;
  readonly diffIds: readonly string[];
  readonly layers: readonly Layer[];
}

/**
 * Follows a name through indexes to this platform's manifest and reads its config.
 * @param timeoutMs - for the config alone: sources bound the time of manifests by themselves
 * @throws HerkosError what the source throws; `FailedPrecondition` for what is no image for this node.
 */
export async function resolveImage(
  ctx: Context,
  source: ImageSource,
  name: ImageName,
  platform: Platform,
  timeoutMs = configTimeoutMs,
): Promise<ResolvedImage> {
  const what = formatReference(name);
  const top = await source.fetchManifest(ctx, name);
  let { descriptor, bytes } = top;
  for (let depth = 0; depth <= indexDepthMax; depth += 1) {
    const document = parseManifest(bytes, descriptor.mediaType, what);
    if (document.kind === 'manifest') {
      const config = await underDeadline(ctx, timeoutMs, `fetching the config of ${what}`, (inner) =>
        fetchConfig(inner, source, name, document.config, what),
      );
      requirePlatform(config.platform, platform, what);
      return combine(top.descriptor.digest, document, config, what);
    }
    const entry = choosePlatform(document, platform, what);
    const next = await source.fetchManifest(ctx, { ...name, tag: undefined, digest: entry.digest });
    // The index is what was verified: its word on the type weighs more than the transport's.
    descriptor = { ...next.descriptor, mediaType: entry.mediaType };
    bytes = next.bytes;
  }
  throw new HerkosError(
    'FailedPrecondition',
    `${what} is an index of indexes more than ${String(indexDepthMax)} deep`,
  );
}

async function fetchConfig(
  ctx: Context,
  source: ImageSource,
  name: ImageName,
  descriptor: Descriptor,
  what: string,
): Promise<ImageConfig> {
  const parts: Buffer[] = [];
  let total = 0;
  for await (const part of source.fetchBlob(ctx, name, descriptor)) {
    total += part.length;
    if (total > Math.min(configBytesMax, descriptor.sizeBytes))
      throw new HerkosError('DataLoss', `${what}: its config is longer than the manifest says`);
    parts.push(part);
  }
  const bytes = Buffer.concat(parts);
  // The config's digest becomes the image's id: it is not left to the source alone.
  if (sha256Digest(bytes) !== descriptor.digest)
    throw new HerkosError('DataLoss', `${what}: its config has another digest than the manifest says`, {
      reason: 'IMAGE_DIGEST_MISMATCH',
    });
  return parseConfig(bytes, `the config of ${what}`);
}

function combine(digest: string, manifest: ImageManifest, config: ImageConfig, what: string): ResolvedImage {
  const { platform: _platform, diffIds, ...run } = config;
  if (manifest.layers.length !== diffIds.length)
    throw new HerkosError(
      'FailedPrecondition',
      `${what} has ${String(manifest.layers.length)} layers and a config for ${String(diffIds.length)}`,
    );
  if (diffIds.length === 0)
    throw new HerkosError('FailedPrecondition', `${what} has no layers: there is nothing in it to run`);
  return {
    digest,
    id: manifest.config.digest,
    sizeBytes: manifest.layers.reduce((sum, layer) => sum + layer.sizeBytes, manifest.config.sizeBytes),
    run,
    diffIds,
    layers: manifest.layers.map((descriptor, index) => ({ descriptor, diffId: diffIds[index] ?? '' })),
  };
}
