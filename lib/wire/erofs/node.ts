/** A file system tree in memory: metadata only, data stays in the output. */
import { HerkosError } from '../../base/errors.js';
import { fileTypes, xattrEntryBytes, xattrPrefixes, xattrValueBytesMax } from './format.js';

export interface Xattr {
  /** Byte string with its prefix. */
  readonly name: string;
  readonly value: Buffer;
}

/** Data with holes: block address of each chunk, `nullBlock` for a hole. */
export interface ChunkMap {
  /** log2 of the bytes in a chunk. */
  readonly bits: number;
  readonly blocks: Uint32Array;
}

export interface NodeAttributes {
  /** st_mode with the file type. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
}

/**
 * One inode. A class, and every field always there, so that the engine keeps 100,000 of them compact.
 * Two directory entries that hold the same node are hard links.
 */
export class ErofsNode {
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** Bytes of a regular file, or of a directory once it is laid out. */
  size = 0;
  /** Encoded device number. */
  device = 0;
  xattrs: readonly Xattr[] | undefined = undefined;
  /** Byte string of a symbolic link. */
  target: string | undefined = undefined;
  /** Entries by name (byte string) of a directory. */
  children: Map<string, ErofsNode> | undefined;
  /** First block of the data, for a regular file without holes or a directory. */
  startBlock = 0;
  chunks: ChunkMap | undefined = undefined;
  /** Filled in by the layout; 0 before it. */
  links = 0;
  nid = 0;

  constructor(attributes: NodeAttributes) {
    this.mode = attributes.mode;
    this.uid = attributes.uid;
    this.gid = attributes.gid;
    this.mtimeSec = attributes.mtimeSec;
    this.mtimeNsec = attributes.mtimeNsec;
    this.children = (attributes.mode & fileTypes.mask) === fileTypes.directory ? new Map() : undefined;
  }

  get isDirectory(): boolean {
    return this.children !== undefined;
  }

  get isRegular(): boolean {
    return (this.mode & fileTypes.mask) === fileTypes.regular;
  }
}

/** A directory that no archive describes. */
export function defaultDirectory(): ErofsNode {
  return new ErofsNode({ mode: fileTypes.directory | 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
}

/** How a name is stored; undefined for a prefix that EROFS cannot hold. */
export function splitXattrName(
  name: string,
): { readonly index: number; readonly suffix: string } | undefined {
  for (const { index, prefix } of xattrPrefixes) {
    if (!name.startsWith(prefix)) continue;
    const suffix = name.slice(prefix.length);
    // The ACL names are whole names, the others need something behind the dot.
    if ((suffix === '') === prefix.endsWith('.')) continue;
    return suffix.length > 255 ? undefined : { index, suffix };
  }
  return undefined;
}

/** Bytes of one attribute in an inode, aligned. @throws HerkosError `InvalidArgument` when it cannot be stored. */
export function xattrBytes(attribute: Xattr): number {
  const split = splitXattrName(attribute.name);
  if (split === undefined)
    throw new HerkosError(
      'InvalidArgument',
      `the extended attribute ${JSON.stringify(attribute.name)} cannot be stored`,
    );
  if (attribute.value.length > xattrValueBytesMax)
    throw new HerkosError(
      'InvalidArgument',
      `the extended attribute ${JSON.stringify(attribute.name)} is larger than ${String(xattrValueBytesMax)} bytes`,
    );
  const bytes = xattrEntryBytes + split.suffix.length + attribute.value.length;
  return (bytes + 3) & ~3;
}
