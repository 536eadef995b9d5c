import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

import { isErrno } from './errors.js';

/**
 * Makes a directory with its missing parents, all of this mode; succeeds when it is there. For paths that requests
 * bring: node's own recursive mkdir never returns where a parent is there and the kernel calls its child ENOENT, as
 * below /proc.
 * @throws the system's error of the first directory that cannot be made
 */
export async function makeDirectories(path: string, mode: number): Promise<void> {
  try {
    await makeOne(path, mode);
  } catch (error) {
    const parent = dirname(path);
    if (!isErrno(error, 'ENOENT') || (await isThere(parent))) throw error;
    await makeDirectories(parent, mode);
    await makeOne(path, mode);
  }
}

/** Somebody else may have made it meanwhile. */
async function makeOne(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (!isErrno(error, 'EEXIST') || !(await isDirectory(path))) throw error;
  }
}

/** The root is its own parent, and always there. */
async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: unknown) => !isErrno(error, 'ENOENT'),
  );
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (status) => status.isDirectory(),
    () => false,
  );
}
