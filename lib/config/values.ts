/** Value types that several sections use. */
import { z } from 'zod';

import { messageOf } from '../base/errors.js';
import { GIB, KIB, MIB, TIB, parseBytes } from '../base/units.js';

const sizeWanted = 'write a size such as "512MiB", or a number of bytes';

/** `512MiB`, `10Gi` or a number of bytes; becomes bytes. */
export const bytes = z
  .union([z.number().int(sizeWanted).nonnegative(sizeWanted), z.string()], sizeWanted)
  .transform((value, context) => {
    if (typeof value === 'number') return value;
    try {
      return parseBytes(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: messageOf(error) });
      return z.NEVER;
    }
  });

/** The same within bounds, which are included. */
export function bytesWithin(min: number, max = Number.MAX_SAFE_INTEGER): typeof bytes {
  return bytes
    .refine((value) => value >= min, `too small; write ${writtenBytes(min)} at least`)
    .refine((value) => value <= max, `too large; write ${writtenBytes(max)} at most`);
}

/** `"16MiB"`, as the file takes it. */
function writtenBytes(value: number): string {
  for (const [unit, factor] of [
    ['TiB', TIB],
    ['GiB', GIB],
    ['MiB', MIB],
    ['KiB', KIB],
  ] as const)
    if (value % factor === 0) return `"${String(value / factor)}${unit}"`;
  return String(value);
}

/** A path from the root of the file system, without tricks. */
export const absolutePath = z
  .string()
  .refine(
    (path) => path.startsWith('/') && !path.split('/').includes('..') && !path.includes('\0'),
    'write an absolute path without ".."',
  );

export const positiveInt = z.number().int().positive();

const aDaySeconds = 86_400;

/** Parts of a second are taken; less than one is no time for anything that has a limit here. */
export const seconds = z
  .number('write a number of seconds')
  .min(1, 'too short; write 1 second at least')
  .max(aDaySeconds, `too long; write ${String(aDaySeconds)} seconds at most`);
