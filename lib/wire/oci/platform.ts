import { HerkosError } from '../../base/errors.js';
import type { ImageIndex, IndexEntry, Platform } from './types.js';

const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/** What the guests of this machine run: Linux on the machine's own architecture. */
export function hostPlatform(nodeArchitecture: string = process.arch): Platform {
  return { os: 'linux', architecture: architectures[nodeArchitecture] ?? nodeArchitecture, variant: '' };
}

/** Variants that every machine of the architecture runs, best first; others need a newer processor. */
const variants: Readonly<Record<string, readonly string[]>> = {
  amd64: ['', 'v1'],
  arm64: ['', 'v8'],
};

/**
 * The entry of an index for a platform: the one that names it, else one that names none (its config
 * is checked later). Attestations and other artifacts are no candidates.
 * @throws HerkosError `FailedPrecondition` that lists what the index offers.
 */
export function choosePlatform(index: ImageIndex, wanted: Platform, what: string): IndexEntry {
  const images = index.manifests.filter((entry) => !entry.artifact);
  for (const variant of variants[wanted.architecture] ?? ['']) {
    const found = images.find(
      (entry) => entry.platform !== undefined && matches(entry.platform, wanted, variant),
    );
    if (found !== undefined) return found;
  }
  const silent = images.find((entry) => entry.platform === undefined);
  if (silent !== undefined) return silent;
  const offered = [...new Set(images.map((entry) => formatPlatform(entry.platform)))].slice(0, 20).join(', ');
  throw new HerkosError(
    'FailedPrecondition',
    `${what} has no image for ${formatPlatform(wanted)}; it has ${offered === '' ? 'none at all' : offered}`,
    { reason: 'IMAGE_NO_PLATFORM' },
  );
}

/** @throws HerkosError `FailedPrecondition` when an image's config is for another platform. */
export function requirePlatform(actual: Platform, wanted: Platform, what: string): void {
  // Old builders left both fields empty; there is nothing to compare then.
  const osFits = actual.os === '' || actual.os === wanted.os;
  const architectureFits = actual.architecture === '' || actual.architecture === wanted.architecture;
  if (osFits && architectureFits) return;
  throw new HerkosError(
    'FailedPrecondition',
    `${what} is for ${formatPlatform(actual)}; this node runs ${formatPlatform(wanted)}`,
    { reason: 'IMAGE_NO_PLATFORM' },
  );
}

function matches(platform: Platform, wanted: Platform, variant: string): boolean {
  return (
    platform.os === wanted.os && platform.architecture === wanted.architecture && platform.variant === variant
  );
}

function formatPlatform(platform: Platform | undefined): string {
  if (platform === undefined) return 'an unnamed platform';
  const parts = [platform.os, platform.architecture, platform.variant].filter((part) => part !== '');
  return parts
    .join('/')
    .replaceAll(/[^\x20-\x7e]/g, '?')
    .slice(0, 60);
}
