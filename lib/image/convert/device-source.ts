/** Device files and plain images as sources to read from, asynchronously or inside a worker. */
import { fstatSync, readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';

import { superOffset } from '../../wire/erofs/format.js';
import { deviceHeadBytes, hasDeviceHead } from '../../wire/erofs/pfn-info.js';
import { CachedSource } from '../../wire/erofs/source.js';
import type { ByteSource, ReadAt } from '../../wire/erofs/source.js';

/** Enough to see the info block. */
const headBytes = 8192;

/** Reads through the thread pool, for the main thread. */
export async function openHandle(handle: FileHandle): Promise<ByteSource> {
  const { size } = await handle.stat();
  return sourceOf(async (buffer, position) => {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    return bytesRead;
  }, size);
}

/** Reads synchronously, which is faster where blocking hurts nobody. */
export async function openDescriptor(descriptor: number): Promise<ByteSource> {
  const { size } = fstatSync(descriptor);
  return sourceOf(
    (buffer, position) => Promise.resolve(readSync(descriptor, buffer, 0, buffer.length, position)),
    size,
  );
}

/** The image begins behind the head of a device file, or at once in a plain image. */
async function sourceOf(readAt: ReadAt, bytes: number): Promise<ByteSource> {
  const head = Buffer.alloc(headBytes);
  if (bytes >= deviceHeadBytes + superOffset) await readAt(head, 0);
  const offset = hasDeviceHead(head) ? deviceHeadBytes : 0;
  return new CachedSource(readAt, offset, bytes - offset);
}
