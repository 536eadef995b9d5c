/**
 * Directory data: blocks of 4 KiB, each a table of 12-byte entries followed by their names, all
 * entries (`.` and `..` too) in strcmp order so that a look-up can search by halves.
 */
import { blockBytes, direntBytes, direntType } from './format.js';
import type { ErofsNode } from './node.js';

export interface DirectoryEntry {
  /** Byte string. */
  readonly name: string;
  readonly node: ErofsNode;
}

/** All entries in the order of the format. One-character-a-byte strings compare as strcmp does. */
export function sortedEntries(directory: ErofsNode, parent: ErofsNode): DirectoryEntry[] {
  const entries: DirectoryEntry[] = [
    { name: '.', node: directory },
    { name: '..', node: parent },
  ];
  for (const [name, node] of directory.children ?? []) entries.push({ name, node });
  return entries.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Bytes of the data: whole blocks, and what the last one uses. */
export function directoryBytes(entries: readonly DirectoryEntry[]): number {
  let blocks = 0;
  let used = 0;
  for (const { name } of entries) {
    const need = direntBytes + name.length;
    if (used + need > blockBytes) {
      blocks += 1;
      used = 0;
    }
    used += need;
  }
  return blocks * blockBytes + used;
}

/** Encodes the data; the inode numbers of all nodes must be known. */
export function encodeDirectory(entries: readonly DirectoryEntry[], size: number): Buffer {
  const data = Buffer.alloc(size);
  let first = 0;
  for (let block = 0; first < entries.length; block += blockBytes)
    first = encodeBlock(entries, first, data, block);
  return data;
}

function encodeBlock(entries: readonly DirectoryEntry[], first: number, data: Buffer, block: number): number {
  let used = 0;
  let end = first;
  for (let entry = entries[end]; entry !== undefined; entry = entries[end]) {
    const need = direntBytes + entry.name.length;
    if (used + need > blockBytes) break;
    used += need;
    end += 1;
  }
  let nameOffset = (end - first) * direntBytes;
  for (let index = first; index < end; index += 1) {
    const entry = entries[index];
    if (entry === undefined) break;
    const at = block + (index - first) * direntBytes;
    data.writeUInt32LE(entry.node.nid >>> 0, at);
    data.writeUInt32LE(Math.floor(entry.node.nid / 2 ** 32), at + 4);
    data.writeUInt16LE(nameOffset, at + 8);
    data[at + 10] = direntType(entry.node.mode);
    data.write(entry.name, block + nameOffset, 'latin1');
    nameOffset += entry.name.length;
  }
  return end;
}
