/** The files of an archive by name, whether they lie in a directory or in a tar file. */
import { constants } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Context } from '../../base/context.js';
import { throwIfDone } from '../../base/context.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { KIB } from '../../base/units.js';

const readBytes = 256 * KIB;
/** Nothing else on a host has such a name, and layouts may share a directory of blobs by a link. */
const blobPattern = /^blobs\/sha256\/[0-9a-f]{64}$/;

export interface ArchiveFiles {
  /** For errors. */
  readonly what: string;
  /** Size of a regular file; undefined when there is none of this name. */
  sizeOf(name: string): Promise<number | undefined>;
  /** @throws HerkosError `NotFound`. */
  read(ctx: Context, name: string): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** A small file, whole. @throws HerkosError `NotFound`, `FailedPrecondition` when it is bigger than `bytesMax`. */
export async function readSmall(
  ctx: Context,
  files: ArchiveFiles,
  name: string,
  bytesMax: number,
): Promise<Buffer> {
  const size = await files.sizeOf(name);
  if (size === undefined) throw missing(files, name);
  if (size > bytesMax)
    throw new HerkosError(
      'FailedPrecondition',
      `${files.what}: ${name} is ${String(size)} bytes long; at most ${String(bytesMax)} are read`,
    );
  const parts: Buffer[] = [];
  for await (const part of files.read(ctx, name)) parts.push(part);
  return Buffer.concat(parts);
}

export function missing(files: ArchiveFiles, name: string): HerkosError {
  return new HerkosError(
    'NotFound',
    `${files.what} has no file ${name.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200)}`,
  );
}

/** An unpacked layout or Docker archive. The latter names its files as it likes: none may be outside of the directory. */
export class DirectoryFiles implements ArchiveFiles {
  readonly what: string;

  constructor(directory: string) {
    this.what = directory;
  }

  async sizeOf(name: string): Promise<number | undefined> {
    const handle = await this.#open(name);
    try {
      return handle === undefined ? undefined : (await handle.stat()).size;
    } finally {
      await handle?.close();
    }
  }

  async *read(ctx: Context, name: string): AsyncGenerator<Buffer, void, void> {
    const handle = await this.#open(name);
    if (handle === undefined) throw missing(this, name);
    try {
      yield* readRange(ctx, handle, 0, (await handle.stat()).size, this.what);
    } finally {
      await handle.close();
    }
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }

  /** Links on the way count as what they lead to; the file itself must be none. */
  async #isInside(name: string): Promise<boolean> {
    if (blobPattern.test(name)) return true;
    if (name.includes('\0') || name.split('/').includes('..')) return false;
    const root = await realpath(this.what);
    const parent = await realpath(dirname(join(this.what, name)));
    return parent === root || parent.startsWith(root === '/' ? root : `${root}/`);
  }

  /** Only regular files: a pipe or a device in a layout could block or never end. */
  async #open(name: string): Promise<FileHandle | undefined> {
    let handle: FileHandle;
    try {
      if (!(await this.#isInside(name))) return undefined;
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      handle = await open(join(this.what, name), flags);
    } catch (error) {
      if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR') || isErrno(error, 'ELOOP')) return undefined;
      throw new HerkosError(
        'FailedPrecondition',
        `${this.what}: ${name} cannot be read: ${messageOf(error)}`,
        { cause: error },
      );
    }
    if ((await handle.stat()).isFile()) return handle;
    await handle.close();
    return undefined;
  }
}

/** `length` bytes of an open file from `start`. @throws HerkosError `DataLoss` when it became shorter. */
export async function* readRange(
  ctx: Context,
  handle: FileHandle,
  start: number,
  length: number,
  what: string,
): AsyncGenerator<Buffer, void, void> {
  for (let done = 0; done < length;) {
    throwIfDone(ctx);
    const buffer = Buffer.allocUnsafe(Math.min(readBytes, length - done));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, start + done);
    if (bytesRead === 0) throw new HerkosError('DataLoss', `${what} ended early`);
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}
