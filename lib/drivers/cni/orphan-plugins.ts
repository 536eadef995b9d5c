/**
 * A plugin outlives a daemon that was killed: its ADD may take an address after the next daemon's DEL
 * gave everything back. So before the DEL of an ADD that another process began, its plugins are ended.
 */
import { readFile, readdir } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { sleep } from '../../base/context.js';
import { killIfThere } from '../../base/processes.js';

const pollMs = 5;

/**
 * Kills every process that CNI started for `containerId`, delegates such as host-local included, and waits for
 * their end. Looks again until there is none: one may have been starting another at the first look.
 */
export async function endPluginsOf(ctx: Context, containerId: string): Promise<number> {
  const marker = Buffer.from(`\0CNI_CONTAINERID=${containerId}\0`);
  let ended = 0;
  for (;;) {
    const owned = await processesWith(marker);
    if (owned.length === 0) return ended;
    ended += owned.length;
    for (const pid of owned) killIfThere(pid);
    // Not our children, so there is no exit event; they die within a scheduler tick.
    for (const pid of owned)
      while ((await readOrEmpty(`/proc/${String(pid)}/environ`)).includes(marker.subarray(1)))
        await sleep(ctx, pollMs);
  }
}

async function processesWith(marker: Buffer): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found: number[] = [];
  for (const pid of pids) {
    if (pid === process.pid) continue;
    const environ = await readOrEmpty(`/proc/${String(pid)}/environ`);
    if (Buffer.concat([Buffer.from('\0'), environ]).includes(marker)) found.push(pid);
  }
  return found;
}

/** A process may end, or deny its environment, between two looks; both mean "not ours". */
async function readOrEmpty(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch {
    return Buffer.alloc(0);
  }
}
