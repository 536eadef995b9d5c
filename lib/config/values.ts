/** Value types that several sections use. */
import { z } from 'zod';

import { parseBytes } from '../base/units.js';

/** `512MiB`, `10Gi` or a number of bytes; becomes bytes. */
export const bytes = z.union([z.number().int().nonnegative(), z.string()]).transform((value, context) => {
  if (typeof value === 'number') return value;
  try {
    return parseBytes(value);
  } catch (error) {
    context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) });
    return z.NEVER;
  }
});

/** A path from the root of the file system, without tricks. */
export const absolutePath = z
  .string()
  .refine(
    (path) => path.startsWith('/') && !path.split('/').includes('..') && !path.includes('\0'),
    'write an absolute path without ".."',
  );

export const positiveInt = z.number().int().positive();

export const seconds = z.number().positive().max(86_400);
