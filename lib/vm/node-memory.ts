import { readFile } from 'node:fs/promises';

import { KIB } from '../base/units.js';

/** Bytes that the kernel believes it could give to new processes without swapping (proc(5), meminfo). */
export async function availableMemoryBytes(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * KIB;
}
