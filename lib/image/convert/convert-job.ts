/** One conversion inside a worker thread. */
import { createHash } from 'node:crypto';

import { HerkosError } from '../../base/errors.js';
import { openDecompressor } from './decompress.js';
import type { Decompressor } from './decompress.js';
import { DeviceFile } from './device-file.js';
import { LayerBuilder } from './layer-builder.js';
import { LimitGuard } from './limits.js';
import type { ConvertJob } from './messages.js';
import type { ConvertProgress, ConvertResult } from './types.js';

const progressBytesStep = 4 * 1024 * 1024;

export class ConvertRun {
  readonly #job: ConvertJob;
  readonly #guard: LimitGuard;
  readonly #file: DeviceFile;
  readonly #builder: LayerBuilder;
  readonly #decompressor: Decompressor;
  readonly #hash = createHash('sha256');
  readonly #onProgress: (progress: ConvertProgress) => void;
  #reportedBytes = 0;
  #stopped = false;

  constructor(job: ConvertJob, onProgress: (progress: ConvertProgress) => void) {
    this.#job = job;
    this.#onProgress = onProgress;
    this.#guard = new LimitGuard(job.limits);
    this.#file = new DeviceFile(job.temporaryPath, this.#guard.limits.freeBytesMin);
    this.#builder = new LayerBuilder(this.#file, this.#guard, job.absoluteNames);
    this.#decompressor = openDecompressor(job.compression, (chunk) => {
      if (this.#stopped) return;
      this.#builder.push(chunk);
      this.#report();
    });
  }

  async push(chunk: Buffer): Promise<void> {
    this.#guard.compressedBytes += chunk.length;
    const { expectedBytes } = this.#job;
    if (expectedBytes !== undefined && this.#guard.compressedBytes > expectedBytes)
      throw new HerkosError(
        'DataLoss',
        `the layer is larger than the ${String(expectedBytes)} bytes it states`,
        {
          reason: 'IMAGE_SIZE_MISMATCH',
        },
      );
    this.#hash.update(chunk);
    await this.#decompressor.write(chunk);
  }

  async finish(): Promise<ConvertResult> {
    const digest = `sha256:${this.#hash.digest('hex')}`;
    this.#checkCompressed(digest);
    await this.#decompressor.end();
    const { diffId, deviceBytes } = this.#builder.finish((found) => {
      mustEqual('uncompressed layer', this.#job.expectedDiffId, found);
    });
    const { compressedBytes, uncompressedBytes, entries } = this.#guard;
    return { diffId, digest, compressedBytes, uncompressedBytes, deviceBytes, entries };
  }

  /** Frees everything but the temporary file, which its owner removes. */
  stop(): void {
    this.#stopped = true;
    this.#decompressor.destroy();
    this.#file.close();
  }

  #checkCompressed(digest: string): void {
    const { expectedBytes, expectedDigest } = this.#job;
    const got = this.#guard.compressedBytes;
    if (expectedBytes !== undefined && got !== expectedBytes)
      throw new HerkosError(
        'DataLoss',
        `the layer has ${String(got)} bytes, not the ${String(expectedBytes)} it states`,
        {
          reason: 'IMAGE_SIZE_MISMATCH',
        },
      );
    mustEqual('layer', expectedDigest, digest);
  }

  #report(): void {
    const { compressedBytes, uncompressedBytes, entries } = this.#guard;
    if (uncompressedBytes - this.#reportedBytes < progressBytesStep) return;
    this.#reportedBytes = uncompressedBytes;
    this.#onProgress({ compressedBytes, uncompressedBytes, entries });
  }
}

function mustEqual(what: string, expected: string | undefined, found: string): void {
  if (expected === undefined || expected === found) return;
  throw new HerkosError('DataLoss', `the ${what} has the digest ${found}, not ${expected}`, {
    reason: 'IMAGE_DIGEST_MISMATCH',
  });
}
