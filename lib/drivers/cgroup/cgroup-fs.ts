import { open, readFile, rmdir } from 'node:fs/promises';

import { makeDirectories } from '../../base/directories.js';
import { isErrno } from '../../base/errors.js';
import { killIfThere } from '../../base/processes.js';

/** What is done with cgroups and the processes in them; the kernel makes and removes the files in them by itself. */
export interface CgroupFs {
  /** With missing parents; succeeds when it is there. */
  makeDirectory(path: string): Promise<void>;
  /** Fails with EBUSY while processes are inside; succeeds when it is not there. */
  removeDirectory(path: string): Promise<void>;
  /** Undefined when there is no such file. */
  read(path: string): Promise<string | undefined>;
  /** @throws an error with code ENOENT when there is no such file */
  write(path: string, value: string): Promise<void>;
  /** SIGKILL; succeeds when the process is gone. */
  kill(pid: number): void;
}

export const systemCgroupFs: CgroupFs = {
  async makeDirectory(path) {
    await makeDirectories(path, 0o755);
  },
  async removeDirectory(path) {
    try {
      await rmdir(path);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  },
  async read(path) {
    try {
      return await readFile(path, 'utf8');
    } catch (error) {
      // ENODEV: the cgroup was removed while its file was open.
      if (isErrno(error, 'ENOENT') || isErrno(error, 'ENODEV')) return undefined;
      throw error;
    }
  },
  async write(path, value) {
    // Never O_CREAT: a name the kernel does not know must be an error.
    const file = await open(path, 'r+').catch(async (error: unknown) => {
      if (isErrno(error, 'EACCES')) return open(path, 'w');
      throw error;
    });
    try {
      await file.write(value);
    } finally {
      await file.close();
    }
  },
  kill: killIfThere,
};
