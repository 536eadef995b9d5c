import { direntBytes, nameBytesMax } from './format.js';
import { brokenImage } from './source.js';

export interface Dirent {
  /** Byte string. */
  readonly name: string;
  readonly nid: number;
}

/** The entries of one directory block. @throws HerkosError `DataLoss` when an entry points outside or has no fit name. */
export function readDirents(block: Buffer): Dirent[] {
  if (block.length < direntBytes) throw brokenImage('a directory is cut off');
  const tableBytes = block.readUInt16LE(8);
  if (tableBytes < direntBytes || tableBytes % direntBytes !== 0 || tableBytes > block.length)
    throw brokenImage('a directory has a malformed table');
  const dirents: Dirent[] = [];
  for (let at = 0; at < tableBytes; at += direntBytes) {
    const start = block.readUInt16LE(at + 8);
    const isLast = at + direntBytes === tableBytes;
    const end = isLast ? nameEnd(block, start) : block.readUInt16LE(at + direntBytes + 8);
    if (start < tableBytes || end <= start || end > block.length || end - start > nameBytesMax)
      throw brokenImage('a directory has a malformed entry');
    const name = block.toString('latin1', start, end);
    if (name.includes('/') || name.includes('\0')) throw brokenImage('a directory has an impossible name');
    const nid = Number(block.readBigUInt64LE(at));
    if (!Number.isSafeInteger(nid)) throw brokenImage('a directory has an impossible inode number');
    dirents.push({ name, nid });
  }
  return dirents;
}

/** The last name ends at the block's end or at the first NUL. */
function nameEnd(block: Buffer, start: number): number {
  const end = block.indexOf(0, start);
  return end === -1 ? block.length : end;
}
