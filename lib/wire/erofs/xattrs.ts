import { xattrEntryBytes, xattrHeaderBytes, xattrPrefixes } from './format.js';
import type { Xattr } from './node.js';
import { brokenImage } from './source.js';
import type { ByteSource } from './source.js';

/** Attributes of an inode: ids of shared ones first, then its own. Unknown prefixes are left out. */
export async function readXattrArea(area: Buffer, source: ByteSource, sharedStart: number): Promise<Xattr[]> {
  const found: Xattr[] = [];
  const sharedCount = area[4] ?? 0;
  let at = xattrHeaderBytes + 4 * sharedCount;
  if (at > area.length) throw brokenImage('extended attributes are cut off');
  for (let index = 0; index < sharedCount; index += 1) {
    const position = sharedStart + 4 * area.readUInt32LE(xattrHeaderBytes + 4 * index);
    const head = await source.read(position, xattrEntryBytes);
    add(found, await source.read(position, entryBytes(head, 0)), 0);
  }
  while (at + xattrEntryBytes <= area.length) {
    const bytes = entryBytes(area, at);
    if (at + bytes > area.length) throw brokenImage('extended attributes are cut off');
    // Padding at the end of the area looks like an entry without a name.
    if (area[at] !== 0 || area[at + 1] !== 0) add(found, area, at);
    at += (bytes + 3) & ~3;
  }
  return found;
}

function entryBytes(data: Buffer, at: number): number {
  return xattrEntryBytes + (data[at] ?? 0) + data.readUInt16LE(at + 2);
}

function add(found: Xattr[], data: Buffer, at: number): void {
  const nameLength = data[at] ?? 0;
  const prefix = xattrPrefixes.find(({ index }) => index === data[at + 1]);
  if (prefix === undefined) return;
  const nameStart = at + xattrEntryBytes;
  const valueStart = nameStart + nameLength;
  found.push({
    name: prefix.prefix + data.toString('latin1', nameStart, valueStart),
    value: Buffer.from(data.subarray(valueStart, valueStart + data.readUInt16LE(at + 2))),
  });
}
