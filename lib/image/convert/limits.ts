import { HerkosError } from '../../base/errors.js';
import { GIB, MIB, formatBytes } from '../../base/units.js';
import type { ConvertLimits } from './types.js';

export const defaultConvertLimits: ConvertLimits = {
  uncompressedBytesMax: 64 * GIB,
  ratioMax: 200,
  ratioGraceBytes: GIB,
  entriesMax: 2_000_000,
  metadataBytesMax: 512 * MIB,
  deviceBytesMax: 64 * GIB,
  freeBytesMin: 0,
};

/** Counts what a conversion takes and refuses too much of it. */
export class LimitGuard {
  readonly limits: ConvertLimits;
  compressedBytes = 0;
  uncompressedBytes = 0;
  entries = 0;
  #metadataBytes = 0;

  constructor(limits: Partial<ConvertLimits> = {}) {
    this.limits = { ...defaultConvertLimits, ...limits };
  }

  addUncompressed(bytes: number): void {
    this.uncompressedBytes += bytes;
    const { uncompressedBytesMax, ratioMax, ratioGraceBytes } = this.limits;
    if (this.uncompressedBytes > uncompressedBytesMax)
      throw exceeded(`the layer is larger than ${formatBytes(uncompressedBytesMax)} uncompressed`);
    if (this.uncompressedBytes > ratioGraceBytes && this.uncompressedBytes > this.compressedBytes * ratioMax)
      throw exceeded(`the layer expands to more than ${String(ratioMax)} times its compressed size`);
  }

  addEntry(): void {
    this.entries += 1;
    if (this.entries > this.limits.entriesMax)
      throw exceeded(`the layer has more than ${String(this.limits.entriesMax)} entries`);
  }

  addMetadata(bytes: number): void {
    this.#metadataBytes += bytes;
    if (this.#metadataBytes > this.limits.metadataBytesMax)
      throw exceeded(
        `the names and attributes of the layer take more than ${formatBytes(this.limits.metadataBytesMax)}`,
      );
  }

  checkImage(imageBytes: number): void {
    if (imageBytes > this.limits.deviceBytesMax)
      throw exceeded(`the device file would be larger than ${formatBytes(this.limits.deviceBytesMax)}`);
  }
}

function exceeded(message: string): HerkosError {
  return new HerkosError('ResourceExhausted', message, { reason: 'LAYER_TOO_LARGE' });
}
