import { stat } from 'node:fs/promises';

import { HerkosError, messageOf } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { LayerDevice } from '../../model/image.js';
import type { BackingFile } from './device-commands.js';

/** The guest maps persistent memory in pages of 2 MiB and refuses a device that does not end on one. */
export const pmemAlignBytes = 2 * MIB;

/**
 * Looks at a layer file before QEMU does.
 * @throws HerkosError `NotFound`, or `FailedPrecondition` for a file that no guest could map
 */
export async function checkLayerFile(layer: LayerDevice): Promise<BackingFile> {
  const sizeBytes = await pmemFileSize(layer.path, `layer ${layer.key}`);
  if (sizeBytes !== layer.sizeBytes)
    throw new HerkosError(
      'FailedPrecondition',
      `layer ${layer.key}: its file has ${String(sizeBytes)} bytes, its record says ${String(layer.sizeBytes)}; remove the image and pull it again`,
    );
  return { path: layer.path, sizeBytes };
}

/** Size of a file that can be a persistent memory device; `what` names it in errors. */
export async function pmemFileSize(path: string, what: string): Promise<number> {
  const info = await stat(path).catch((error: unknown) => {
    throw new HerkosError('NotFound', `${what}: ${messageOf(error)}`, { cause: error });
  });
  if (!info.isFile()) throw new HerkosError('FailedPrecondition', `${what}: ${path} is not a regular file`);
  if (info.size === 0 || info.size % pmemAlignBytes !== 0)
    throw new HerkosError(
      'FailedPrecondition',
      `${what}: ${path} has ${String(info.size)} bytes; the size of a persistent memory device must be a multiple of 2 MiB`,
    );
  return info.size;
}
