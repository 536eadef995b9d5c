import { watch } from 'node:fs';
import { open, stat, truncate } from 'node:fs/promises';

import { MIB } from '../../base/units.js';

/** A guest can make QEMU complain, or write to its console, without end. */
const logBytesMax = MIB;

/** The log that QEMU inherits as its standard output and error. */
export async function makeLog(path: string, uid: number): Promise<void> {
  const file = await open(path, 'a', 0o600);
  try {
    await file.chown(uid, uid);
  } finally {
    await file.close();
  }
}

/**
 * Empties the log whenever it has grown too long; its writers append, so they go on at the begin.
 * RLIMIT_FSIZE cannot do this: it would count for the VM's disks too. Returns what ends the watch.
 */
export function limitLog(path: string): () => void {
  const limit = async (): Promise<void> => {
    const { size } = await stat(path);
    if (size > logBytesMax) await truncate(path);
  };
  let busy = false;
  const watcher = watch(path, { persistent: false }, () => {
    if (busy) return;
    busy = true;
    limit()
      .catch(() => undefined)
      .finally(() => {
        busy = false;
      });
  });
  watcher.on('error', () => undefined);
  return () => {
    watcher.close();
  };
}
