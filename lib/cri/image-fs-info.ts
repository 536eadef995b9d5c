import Long from 'long';

import type { Context } from '../base/context.js';
import { nowUnixNano } from '../model/time.js';
import type { v1 } from './api.js';
import type { CriParts } from './parts.js';

/** Writable layers lie on the same file system as images, so both lists are the same. */
export async function imageFsInfo(
  _ctx: Context,
  _request: unknown,
  { images }: CriParts,
): Promise<v1.ImageFsInfoResponse.$Properties> {
  const { mountpoint, usedBytes, inodesUsed } = await images.usage();
  const usage = {
    timestamp: Long.fromString(nowUnixNano()),
    fsId: { mountpoint },
    usedBytes: { value: Long.fromNumber(usedBytes, true) },
    inodesUsed: { value: Long.fromNumber(inodesUsed, true) },
  };
  return { imageFilesystems: [usage], containerFilesystems: [usage] };
}
