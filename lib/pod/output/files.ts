/** The few file operations that keeping a log takes, behind an interface so that tests can die between any two. */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open, readFile, readdir, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { temporarySuffix } from '../../base/atomic-file.js';
import { makeDirectories } from '../../base/directories.js';
import { HerkosError, isErrno } from '../../base/errors.js';

export interface OpenLog {
  readonly inode: string;
  size(): Promise<number>;
  append(data: Buffer): Promise<void>;
  truncate(bytes: number): Promise<void>;
  /** At most `length` bytes; empty at the end. */
  read(position: number, length: number): Promise<Buffer>;
  close(): Promise<void>;
}

export interface LogFiles {
  /** Opens for appending. A missing file is made (0640, with its directories) or gives undefined. */
  open(path: string, create: boolean): Promise<OpenLog | undefined>;
  /** The file of `directory` that has this inode, under whatever name. */
  findByInode(directory: string, inode: string): Promise<string | undefined>;
  readCursor(path: string): Promise<string | undefined>;
  /** Atomic, but not flushed to the device: it has to survive this process, not the machine (the VM would not either). */
  writeCursor(path: string, text: string): Promise<void>;
  removeGone(path: string): Promise<void>;
}

const logMode = 0o640;
const logDirectoryMode = 0o755;
const cursorMode = 0o600;
/** A directory with more entries is not searched: rotation keeps a handful. */
const entriesMax = 4096;

export const systemLogFiles: LogFiles = {
  async open(path, create) {
    const flags = constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    if (create) await makeDirectories(dirname(path), logDirectoryMode);
    try {
      const file = await open(path, create ? flags | constants.O_CREAT : flags, logMode);
      return await openLog(file, path);
    } catch (error) {
      if (!create && isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  },

  async findByInode(directory, inode) {
    let names: string[];
    try {
      names = await readdir(directory);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
    for (const name of names.slice(0, entriesMax)) {
      const path = join(directory, name);
      const status = await stat(path, { bigint: true }).catch(() => undefined);
      if (status?.isFile() === true && String(status.ino) === inode) return path;
    }
    return undefined;
  },

  async readCursor(path) {
    try {
      return await readFile(path, 'utf8');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  },

  async writeCursor(path, text) {
    const temporary = path + temporarySuffix;
    await writeFile(temporary, text, { mode: cursorMode });
    await rename(temporary, path);
  },

  async removeGone(path) {
    for (const name of [path, path + temporarySuffix])
      try {
        await unlink(name);
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) throw error;
      }
  },
};

async function openLog(file: FileHandle, path: string): Promise<OpenLog> {
  const status = await file.stat({ bigint: true });
  if (!status.isFile()) {
    await file.close();
    throw new HerkosError('FailedPrecondition', `the log ${path} is not a regular file`);
  }
  return {
    inode: String(status.ino),
    size: async () => (await file.stat()).size,
    append: async (data) => {
      await file.appendFile(data);
    },
    truncate: (bytes) => file.truncate(bytes),
    read: async (position, length) => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
      return buffer.subarray(0, bytesRead);
    },
    close: () => file.close(),
  };
}
