/** What the image room is told and the bounds it keeps. */
import type { Platform } from '../wire/oci/types.js';
import type { ConvertLimits } from './convert/types.js';

export interface ImageSettings {
  /** Device files live in `<root>/layers`, unpacked archives for an import in `<root>/import`. */
  readonly rootDirectory: string;
  /** Group that VM processes have in common, so that they may read device files; undefined leaves the daemon's. */
  readonly readersGid?: number;
  /** Layers fetched and converted at a time, over all pulls. */
  readonly layersAtATime: number;
  /** Bounds of one layer; see `ConvertLimits`. */
  readonly limits: Partial<ConvertLimits>;
  /** A pull that would leave less than this on the disk is refused before it begins. */
  readonly freeBytesMin: number;
  readonly platform: Platform;
  /** Names of images that are never removed; fully qualified or not. */
  readonly pinnedNames: readonly string[];
}

/** Devices of one image: what one PCIe root port takes (a function each). */
export const devicesPerImageMax = 8;
/** Indexes that point to indexes; one step is usual. */
export const indexDepthMax = 3;
/** Shortest part of an image id that names it; shorter ones are more likely mistyped names. */
export const idPrefixLengthMin = 6;
/** A transfer that delivered wrong bytes is tried once more: elsewhere, where a registry has mirrors. */
export const transfersPerLayerMax = 2;
/** A few megabytes at most. Without an end a registry could hold up all pulls of a kubelet, which asks for one at a time. */
export const configTimeoutMs = 300_000;
