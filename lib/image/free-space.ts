import { statfs } from 'node:fs/promises';

import { HerkosError } from '../base/errors.js';
import { formatBytes } from '../base/units.js';

/**
 * Refuses work that cannot end well. The compressed size is the least that the layers can take: what
 * is compressed never becomes smaller by unpacking.
 * @throws HerkosError `ResourceExhausted`.
 */
export async function requireSpace(
  directory: string,
  compressedBytes: number,
  freeBytesMin: number,
): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const freeBytes = bavail * bsize;
  if (freeBytes >= compressedBytes + freeBytesMin) return;
  const keep = freeBytesMin === 0 ? '' : ` and ${formatBytes(freeBytesMin)} to be kept free`;
  throw storeFull(
    `the layers need more than ${formatBytes(compressedBytes)}${keep}; ${directory} has ${formatBytes(freeBytes)} left; make room there`,
  );
}

export function storeFull(message: string, cause?: unknown): HerkosError {
  return new HerkosError('ResourceExhausted', message, { reason: 'IMAGE_STORE_FULL', cause });
}
