/** Finds out what kind of image archive a path is, and unpacks a compressed one. */
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rm, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { createGunzip } from 'node:zlib';

import { temporarySuffix } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { throwIfDone } from '../../base/context.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import { storeFull } from '../free-space.js';
import type { Archive } from './archive-image.js';
import { DockerArchive, dockerManifest } from './docker-archive.js';
import type { ArchiveFiles } from './files.js';
import { DirectoryFiles } from './files.js';
import { OciLayout, layoutMarker } from './oci-layout.js';
import { TarFiles } from './tar-files.js';

/** How often free space is looked at while an archive is unpacked. */
const spaceCheckBytes = 64 * MIB;
const zstdMagic = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const gzipMagic = Buffer.from([0x1f, 0x8b]);

/**
 * Opens an OCI layout directory, an OCI archive or a Docker archive, the latter two plain or gzip.
 * @param scratch where a compressed archive is unpacked; emptied by `close`.
 * @param freeBytesMin left on that disk; an archive that unpacks to more is refused.
 * @throws HerkosError `NotFound`, `FailedPrecondition`, `DataLoss`, `ResourceExhausted`.
 */
export async function openArchive(
  ctx: Context,
  path: string,
  scratch: string,
  freeBytesMin: number,
): Promise<Archive> {
  const { isDirectory } = await look(path);
  const files = isDirectory ? new DirectoryFiles(path) : await openTar(ctx, path, scratch, freeBytesMin);
  try {
    if ((await files.sizeOf(layoutMarker)) !== undefined) return await OciLayout.open(ctx, files);
    if ((await files.sizeOf(dockerManifest)) !== undefined) return await DockerArchive.open(ctx, files);
    throw new HerkosError(
      'FailedPrecondition',
      `${path} is no image archive: it has neither ${layoutMarker} (OCI) nor ${dockerManifest} (Docker)`,
    );
  } catch (error) {
    await files.close();
    throw error;
  }
}

/** Removes what an import that was killed left. */
export async function sweepScratch(scratch: string): Promise<void> {
  for (const name of await readdir(scratch).catch(() => []))
    if (name.endsWith(temporarySuffix)) await rm(join(scratch, name), { force: true });
}

async function look(path: string): Promise<{ isDirectory: boolean }> {
  try {
    const status = await stat(path);
    if (status.isDirectory()) return { isDirectory: true };
    if (status.isFile()) return { isDirectory: false };
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR'))
      throw new HerkosError('NotFound', `there is no archive ${path}`, { cause: error });
    throw new HerkosError('FailedPrecondition', `${path} cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  throw new HerkosError('FailedPrecondition', `${path} is neither a file nor a directory`);
}

async function openTar(
  ctx: Context,
  path: string,
  scratch: string,
  freeBytesMin: number,
): Promise<ArchiveFiles> {
  const head = await readHead(path);
  if (head.equals(zstdMagic))
    throw new HerkosError('FailedPrecondition', `${path} is compressed with zstd; unpack it first (zstd -d)`);
  if (!head.subarray(0, 2).equals(gzipMagic)) return TarFiles.open(ctx, path, path);
  await mkdir(scratch, { recursive: true, mode: 0o700 });
  const plain = join(scratch, `${randomBytes(8).toString('hex')}${temporarySuffix}`);
  try {
    await gunzipTo(ctx, path, plain, scratch, freeBytesMin);
    return await TarFiles.open(ctx, plain, path);
  } finally {
    // What is open stays readable; nothing is left when the daemon dies.
    await unlink(plain).catch(() => undefined);
  }
}

async function readHead(path: string): Promise<Buffer> {
  const handle = await open(path, 'r');
  try {
    const head = Buffer.alloc(4);
    await handle.read(head, 0, 4, 0);
    return head;
  } finally {
    await handle.close();
  }
}

async function gunzipTo(
  ctx: Context,
  from: string,
  to: string,
  scratch: string,
  freeBytesMin: number,
): Promise<void> {
  const source = createReadStream(from, { highWaterMark: MIB });
  const unpacked = source.pipe(createGunzip({ chunkSize: MIB }));
  source.on('error', (error) => unpacked.destroy(error));
  const file = await open(to, 'wx', 0o600);
  let sinceCheck = spaceCheckBytes;
  try {
    for await (const part of unpacked as AsyncIterable<Buffer>) {
      throwIfDone(ctx);
      sinceCheck += part.length;
      if (sinceCheck >= spaceCheckBytes) {
        sinceCheck = 0;
        const { bavail, bsize } = await statfs(scratch);
        if (bavail * bsize < freeBytesMin + spaceCheckBytes)
          throw storeFull(`${from}: there is no room to unpack it`);
      }
      await file.writeFile(part);
    }
  } catch (error) {
    if (error instanceof HerkosError) throw error;
    if (isErrno(error, 'ENOSPC')) throw storeFull(`${from}: there is no room to unpack it`, error);
    throw new HerkosError('DataLoss', `${from} cannot be unpacked: ${messageOf(error)}`, { cause: error });
  } finally {
    await file.close();
    source.destroy();
    unpacked.destroy();
  }
}
