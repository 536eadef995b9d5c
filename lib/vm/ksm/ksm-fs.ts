import { open, readFile, readdir, unlink } from 'node:fs/promises';

import { writeFileAtomic } from '../../base/atomic-file.js';
import { isErrno } from '../../base/errors.js';

/** The kernel's files, and one of ours, as the scanner uses them. */
export interface KsmFs {
  /** Undefined when there is no such file, or the kernel was told at boot not to fill it. */
  read(path: string): Promise<string | undefined>;
  /** Into a file of the kernel. @throws an error with code ENOENT when there is no such file */
  write(path: string, value: string): Promise<void>;
  /** Whole or not at all, and on the disk when it returns. */
  keep(path: string, text: string): Promise<void>;
  /** Succeeds when it is not there. */
  removeGone(path: string): Promise<void>;
  list(directory: string): Promise<string[]>;
}

/** EOPNOTSUPP: pressure is compiled in and switched off. ESRCH: the process ended while its file was open. */
const absentCodes = ['ENOENT', 'ENOTDIR', 'EOPNOTSUPP', 'ESRCH'];

export const systemKsmFs: KsmFs = {
  async read(path) {
    try {
      return await readFile(path, 'utf8');
    } catch (error) {
      if (absentCodes.some((code) => isErrno(error, code))) return undefined;
      throw error;
    }
  },
  async write(path, value) {
    // Never O_CREAT: a name the kernel does not know must be an error.
    const file = await open(path, 'r+');
    try {
      await file.write(value);
    } finally {
      await file.close();
    }
  },
  async keep(path, text) {
    await writeFileAtomic(path, text);
  },
  async removeGone(path) {
    try {
      await unlink(path);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  },
  async list(directory) {
    return readdir(directory);
  },
};
