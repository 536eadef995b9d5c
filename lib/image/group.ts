/** Which layers share a device file: a pure function of the image, the same on every node. */
import { createHash } from 'node:crypto';

import { hexOfDigest } from '../wire/oci/digest.js';
import type { ImageDevice } from '../model/image.js';
import type { LayerDescriptor } from '../wire/oci/types.js';

/** One layer of an image that has something to say: what to fetch and what comes out of it. */
export interface Layer {
  readonly descriptor: LayerDescriptor;
  readonly diffId: string;
}

/** Digest of a tar archive without entries, which some builders add for every step that changes no file. */
export const emptyLayerDiffId = `sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef`;

/**
 * The layers that make a difference, lowest first. Of equal layers only the highest counts: whatever it
 * has or hides, it has or hides above the lower one (and overlayfs refuses a directory that comes twice).
 * Empty layers are left out unless there is nothing else.
 */
export function effectiveLayers(layers: readonly Layer[]): Layer[] {
  const last = new Map(layers.map((layer, index) => [layer.diffId, index]));
  const unique = layers.filter((layer, index) => last.get(layer.diffId) === index);
  const full = unique.filter((layer) => layer.diffId !== emptyLayerDiffId);
  return full.length === 0 ? unique.slice(0, 1) : full;
}

/**
 * Splits `sizes` into at most `groupsMax` runs of neighbours such that the bytes in runs of two or more
 * (the ones that must be written again) are as few as possible. Up to `groupsMax` sizes stay alone.
 * @returns the lengths of the runs.
 */
export function groupNeighbours(sizes: readonly number[], groupsMax: number): number[] {
  const count = sizes.length;
  if (count <= groupsMax) return sizes.map(() => 1);
  const sums = [0];
  for (const size of sizes) sums.push((sums.at(-1) ?? 0) + size);
  // best[g][i]: fewest bytes written again for the first i layers in g runs, and where the last run begins.
  let best = Array.from({ length: count + 1 }, (_, index) => (index === 0 ? 0 : Number.POSITIVE_INFINITY));
  const begins: number[][] = [];
  for (let groups = 1; groups <= groupsMax; groups += 1) {
    const { cost, begin } = addRun(best, sums);
    begins.push(begin);
    best = cost;
  }
  const lengths: number[] = [];
  for (let end = count, groups = groupsMax - 1; groups >= 0; groups -= 1) {
    const start = begins[groups]?.[end] ?? 0;
    if (end > start) lengths.unshift(end - start);
    end = start;
  }
  return lengths;
}

/** One more run behind the best splits so far; of equal splits the one with the earliest beginning. */
function addRun(before: readonly number[], sums: readonly number[]): { cost: number[]; begin: number[] } {
  const cost: number[] = [0];
  const begin: number[] = [0];
  for (let end = 1; end < sums.length; end += 1) {
    let least = Number.POSITIVE_INFINITY;
    let at = 0;
    for (let start = 0; start < end; start += 1) {
      const bytes = end - start === 1 ? 0 : (sums[end] ?? 0) - (sums[start] ?? 0);
      const total = (before[start] ?? 0) + bytes;
      if (total < least) {
        least = total;
        at = start;
      }
    }
    cost.push(least);
    begin.push(at);
  }
  return { cost, begin };
}

/** One device file to be: its name in the store and the layers in it. */
export interface DevicePlan {
  readonly device: ImageDevice;
  readonly layers: readonly Layer[];
}

/** The device files of an image, lowest first. */
export function planDevices(layers: readonly Layer[], devicesMax: number): DevicePlan[] {
  const effective = effectiveLayers(layers);
  const lengths = groupNeighbours(
    effective.map((layer) => layer.descriptor.sizeBytes),
    devicesMax,
  );
  let next = 0;
  return lengths.map((length) => {
    const group = effective.slice(next, next + length);
    next += length;
    return { device: { key: keyOfLayers(group), subdirs: subdirsOf(length) }, layers: group };
  });
}

/** Content address of a device file: the layer's own digest, or one over the digests of the layers joined in it. */
function keyOfLayers(layers: readonly Layer[]): string {
  const [first] = layers;
  if (layers.length === 1 && first !== undefined) return hexOfDigest(first.diffId);
  const list = layers.map((layer) => layer.diffId).join('\n');
  return createHash('sha256').update(`joined\n${list}`).digest('hex');
}

/** How the converter names the layers inside a joined file. */
export function subdirsOf(length: number): string[] {
  return length === 1 ? [''] : Array.from({ length }, (_, index) => String(index));
}
