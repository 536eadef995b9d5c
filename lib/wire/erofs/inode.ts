/** One inode on disk: the record, its extended attributes, and what follows them. */
import {
  alignUp,
  blockBits,
  blockBytes,
  compactInodeBytes,
  extendedInodeBytes,
  fileTypes,
  layouts,
  xattrAreaBytesMax,
  xattrEntryBytes,
  xattrHeaderBytes,
} from './format.js';
import { HerkosError } from '../../base/errors.js';
import type { ErofsNode } from './node.js';
import { splitXattrName, xattrBytes } from './node.js';

/** The time that compact inodes have. */
export interface CommonTime {
  readonly sec: number;
  readonly nsec: number;
}

/** Bytes of the extended attributes with their header; 0 when there are none. */
export function xattrAreaBytes(node: ErofsNode): number {
  if (node.xattrs === undefined || node.xattrs.length === 0) return 0;
  let bytes = xattrHeaderBytes;
  for (const attribute of node.xattrs) bytes += xattrBytes(attribute);
  if (bytes > xattrAreaBytesMax)
    throw new HerkosError(
      'InvalidArgument',
      `a file has more than ${String(xattrAreaBytesMax)} bytes of extended attributes`,
    );
  return bytes;
}

/** The short record has 16 bits for ids and links, 32 for the size, and no time of its own. */
export function isCompact(node: ErofsNode, common: CommonTime): boolean {
  return (
    node.uid <= 0xffff &&
    node.gid <= 0xffff &&
    node.links <= 0xffff &&
    node.size <= 0xffff_ffff &&
    node.mtimeSec === common.sec &&
    node.mtimeNsec === common.nsec
  );
}

export interface InodeLayout {
  readonly compact: boolean;
  /** `layouts.*`. */
  readonly layout: number;
  readonly recordBytes: number;
  readonly xattrBytes: number;
  /** Bytes after the attributes: inline data or a chunk map (4-byte aligned by construction). */
  readonly tailBytes: number;
}

/** Chooses the record's form. Directories and symbolic links keep a short tail beside the inode. */
export function layoutOf(node: ErofsNode, common: CommonTime): InodeLayout {
  const compact = isCompact(node, common);
  const recordBytes = compact ? compactInodeBytes : extendedInodeBytes;
  const attributes = xattrAreaBytes(node);
  let layout: number = layouts.plain;
  let tailBytes = 0;
  if (node.chunks !== undefined) {
    layout = layouts.chunks;
    tailBytes = 4 * node.chunks.blocks.length;
  } else if (hasTail(node)) {
    const tail = node.size % blockBytes;
    if (tail > 0 && recordBytes + attributes + tail <= blockBytes) {
      layout = layouts.inline;
      tailBytes = tail;
    }
  }
  return { compact, layout, recordBytes, xattrBytes: attributes, tailBytes };
}

function hasTail(node: ErofsNode): boolean {
  return node.isDirectory || node.target !== undefined;
}

/** Blocks outside the inode that a directory or a symbolic link needs. */
export function outsideBlocks(node: ErofsNode, layout: InodeLayout): number {
  if (!hasTail(node)) return 0;
  return layout.layout === layouts.inline
    ? Math.floor(node.size / blockBytes)
    : Math.ceil(node.size / blockBytes);
}

/**
 * Where an inode may start, at or after `position`: on a slot, and, since inline data must not cross
 * a block boundary, at the next block when it would.
 */
export function placeInode(position: number, layout: InodeLayout): number {
  const start = alignUp(position, compactInodeBytes);
  if (layout.layout !== layouts.inline) return start;
  const head = layout.recordBytes + layout.xattrBytes;
  return ((start + head) % blockBytes) + layout.tailBytes > blockBytes ? alignUp(start, blockBytes) : start;
}

/** Encodes record and attributes (not the tail). `number` is the 32-bit inode number for stat. */
export function encodeInode(node: ErofsNode, layout: InodeLayout, number: number): Buffer {
  const data = Buffer.alloc(layout.recordBytes + layout.xattrBytes);
  data.writeUInt16LE((layout.compact ? 0 : 1) | (layout.layout << 1), 0);
  data.writeUInt16LE(layout.xattrBytes === 0 ? 0 : (layout.xattrBytes - xattrHeaderBytes) / 4 + 1, 2);
  data.writeUInt16LE(node.mode, 4);
  data.writeUInt32LE(specific(node), 16);
  data.writeUInt32LE(number, 20);
  if (layout.compact) {
    data.writeUInt16LE(node.links, 6);
    data.writeUInt32LE(node.size, 8);
    data.writeUInt16LE(node.uid, 24);
    data.writeUInt16LE(node.gid, 26);
  } else {
    data.writeBigUInt64LE(BigInt(node.size), 8);
    data.writeUInt32LE(node.uid, 24);
    data.writeUInt32LE(node.gid, 28);
    data.writeBigInt64LE(BigInt(node.mtimeSec), 32);
    data.writeUInt32LE(node.mtimeNsec, 40);
    data.writeUInt32LE(node.links, 44);
  }
  if (layout.xattrBytes > 0) encodeXattrs(node, data, layout.recordBytes);
  return data;
}

/** The field that depends on the type: device number, chunk format or first block. */
function specific(node: ErofsNode): number {
  const type = node.mode & fileTypes.mask;
  if (type === fileTypes.char || type === fileTypes.block) return node.device;
  if (node.chunks !== undefined) return node.chunks.bits - blockBits;
  return node.startBlock;
}

function encodeXattrs(node: ErofsNode, data: Buffer, start: number): void {
  let at = start + xattrHeaderBytes;
  for (const attribute of node.xattrs ?? []) {
    const split = splitXattrName(attribute.name);
    if (split === undefined) throw new Error('an attribute was not checked');
    data[at] = split.suffix.length;
    data[at + 1] = split.index;
    data.writeUInt16LE(attribute.value.length, at + 2);
    data.write(split.suffix, at + xattrEntryBytes, 'latin1');
    data.set(attribute.value, at + xattrEntryBytes + split.suffix.length);
    at += xattrBytes(attribute);
  }
}
