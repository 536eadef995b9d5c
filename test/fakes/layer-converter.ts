/** A converter that checks digests and writes recognisable files, without EROFS and without threads. */
import { createHash } from 'node:crypto';
import { readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';

import type { Context } from '../../lib/base/context.js';
import { throwIfDone } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { sha256Digest } from '../../lib/wire/oci/digest.js';
import type {
  ConvertLimits,
  ConvertRequest,
  ConvertResult,
  JoinRequest,
  JoinResult,
  LayerConverter,
} from '../../lib/image/convert/types.js';

export class FakeLayerConverter implements LayerConverter {
  conversions = 0;
  joins = 0;
  /** What the requests so far were told. */
  readonly convertLimits: (Partial<ConvertLimits> | undefined)[] = [];
  readonly joinLimits: { readonly files: number; readonly limits: Partial<ConvertLimits> | undefined }[] = [];
  running = 0;
  runningMax = 0;
  /** Called when the whole layer was read, before the file appears. */
  beforeRename: (ctx: Context, request: ConvertRequest) => Promise<void> = () => Promise.resolve();

  async convert(ctx: Context, request: ConvertRequest): Promise<ConvertResult> {
    this.running += 1;
    this.runningMax = Math.max(this.runningMax, this.running);
    const temporary = `${request.destinationPath}.${String(this.conversions)}.tmp`;
    this.conversions += 1;
    this.convertLimits.push(request.limits);
    try {
      await writeFile(temporary, 'half', { mode: 0o440 });
      const result = await this.#check(ctx, request);
      await this.beforeRename(ctx, request);
      throwIfDone(ctx);
      await rename(temporary, request.destinationPath);
      return result;
    } catch (error) {
      await unlink(temporary);
      throw error;
    } finally {
      this.running -= 1;
    }
  }

  async join(_ctx: Context, request: JoinRequest): Promise<JoinResult> {
    this.joins += 1;
    this.joinLimits.push({ files: request.files.length, limits: request.limits });
    const parts = await Promise.all(request.files.map(async (file) => readFile(file, 'utf8')));
    await writeFile(request.destinationPath, parts.join('+'), { mode: 0o440 });
    const subdirs = request.files.map((_file, index) => String(index));
    return { deviceBytes: 4, entries: 1, subdirs };
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }

  async #check(ctx: Context, request: ConvertRequest): Promise<ConvertResult> {
    const hash = createHash('sha256');
    const parts: Uint8Array[] = [];
    for await (const part of request.source) {
      throwIfDone(ctx);
      hash.update(part);
      parts.push(part);
    }
    const bytes = Buffer.concat(parts);
    const digest = `sha256:${hash.digest('hex')}`;
    if (request.expectedDigest !== undefined && digest !== request.expectedDigest)
      throw new HerkosError('DataLoss', 'the layer has another digest');
    const tar = request.compression === 'gzip' ? await promisify(gunzip)(bytes) : bytes;
    const diffId = sha256Digest(tar);
    if (request.expectedDiffId !== undefined && diffId !== request.expectedDiffId)
      throw new HerkosError('DataLoss', 'the layer unpacks to another digest');
    return {
      diffId,
      digest,
      compressedBytes: bytes.length,
      uncompressedBytes: tar.length,
      deviceBytes: 4,
      entries: 1,
    };
  }
}
