/**
 * Reads uncompressed EROFS images, ours and those of other writers, and believes nothing of what is
 * in them: every position, count and length is checked before it is used.
 */
import { HerkosError } from '../../base/errors.js';
import { crc32c } from './crc32c.js';
import { readDirents } from './dirents.js';
import type { Dirent } from './dirents.js';
import {
  alignUp,
  blockBits,
  blockBytes,
  chunkBitsMask,
  chunkIndexes,
  compactInodeBytes,
  extendedInodeBytes,
  featureCompat,
  featureIncompat,
  fileTypes,
  layouts,
  nullBlock,
  slotBytes,
  superBytes,
  superMagic,
  superOffset,
  xattrHeaderBytes,
} from './format.js';
import type { Xattr } from './node.js';
import { brokenImage } from './source.js';
import type { ByteSource } from './source.js';
import { readXattrArea } from './xattrs.js';

export interface ErofsInode {
  readonly nid: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly links: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  /** Encoded device number of a device. */
  readonly device: number;
  readonly layout: number;
  /** First block, or the chunk format. */
  readonly specific: number;
  /** Where the extended attributes begin, and how many bytes they take. */
  readonly xattrStart: number;
  readonly xattrBytes: number;
}

/** A run of a file's bytes; `position` is undefined for a hole. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly position: number | undefined;
}

/** Features that change nothing for uncompressed data (zero padding is about compressed data). */
const incompatKnown = 1 | featureIncompat.chunkedFile;
/** Directories beyond this are not read: no real one comes near. */
const directoryBytesMax = 512 * 1024 * 1024;
/** Chunk map entries that are read at a time. */
const mapEntriesStep = 4096;

export class ErofsReader {
  readonly #source: ByteSource;
  readonly #metaStart: number;
  readonly #xattrStart: number;
  readonly #buildSec: number;
  readonly #buildNsec: number;
  readonly rootNid: number;
  readonly uuid: Buffer;

  private constructor(source: ByteSource, superblock: Buffer) {
    this.#source = source;
    this.rootNid = superblock.readUInt16LE(14);
    this.#buildSec = Number(superblock.readBigInt64LE(24));
    this.#buildNsec = superblock.readUInt32LE(32);
    this.#metaStart = superblock.readUInt32LE(40) * blockBytes;
    this.#xattrStart = superblock.readUInt32LE(44) * blockBytes;
    this.uuid = Buffer.from(superblock.subarray(48, 64));
  }

  /** @throws HerkosError `DataLoss` when it is no image, `Unimplemented` when it has features that are not read. */
  static async open(source: ByteSource): Promise<ErofsReader> {
    const block = await source.read(0, blockBytes);
    const superblock = block.subarray(superOffset, superOffset + superBytes);
    if (superblock.readUInt32LE(0) !== superMagic) throw brokenImage('there is no superblock');
    if (superblock[12] !== blockBits) throw unsupported('block size');
    if ((superblock.readUInt32LE(80) & ~incompatKnown) !== 0) throw unsupported('set of features');
    if ((superblock.readUInt32LE(8) & featureCompat.superChecksum) !== 0) {
      const copy = Buffer.from(block.subarray(superOffset));
      copy.writeUInt32LE(0, 4);
      if (crc32c(0xffff_ffff, copy) !== superblock.readUInt32LE(4))
        throw brokenImage('the superblock does not have its checksum');
    }
    return new ErofsReader(source, superblock);
  }

  async inode(nid: number): Promise<ErofsInode> {
    const position = this.#metaStart + nid * slotBytes;
    const head = await this.#source.read(position, compactInodeBytes);
    const format = head.readUInt16LE(0);
    if ((format & ~0xf) !== 0) throw unsupported('form of inode');
    const compact = (format & 1) === 0;
    const data = compact ? head : await this.#source.read(position, extendedInodeBytes);
    const count = data.readUInt16LE(2);
    const recordBytes = compact ? compactInodeBytes : extendedInodeBytes;
    const size = compact ? data.readUInt32LE(8) : Number(data.readBigUInt64LE(8));
    if (!Number.isSafeInteger(size)) throw brokenImage('a file has an impossible size');
    const specific = data.readUInt32LE(16);
    return {
      nid,
      mode: data.readUInt16LE(4),
      uid: compact ? data.readUInt16LE(24) : data.readUInt32LE(24),
      gid: compact ? data.readUInt16LE(26) : data.readUInt32LE(28),
      size,
      links: compact ? data.readUInt16LE(6) : data.readUInt32LE(44),
      mtimeSec: compact ? this.#buildSec : Number(data.readBigInt64LE(32)),
      mtimeNsec: compact ? this.#buildNsec : data.readUInt32LE(40),
      device: specific,
      layout: (format >> 1) & 7,
      specific,
      xattrStart: position + recordBytes,
      xattrBytes: count === 0 ? 0 : xattrHeaderBytes + 4 * (count - 1),
    };
  }

  /** All entries but `.` and `..`, in the order of the image. */
  async *directory(inode: ErofsInode): AsyncGenerator<Dirent, void, undefined> {
    if ((inode.mode & fileTypes.mask) !== fileTypes.directory)
      throw brokenImage('an inode is not a directory');
    if (inode.size > directoryBytesMax) throw brokenImage('a directory is too large');
    for (let at = 0; at < inode.size; at += blockBytes) {
      const block = await this.read(inode, at, Math.min(blockBytes, inode.size - at));
      for (const dirent of readDirents(block)) if (dirent.name !== '.' && dirent.name !== '..') yield dirent;
    }
  }

  /** The entry of this name (byte string), or undefined. */
  async lookup(inode: ErofsInode, name: string): Promise<ErofsInode | undefined> {
    // Blocks are in order: the block that can have the name is the last one that begins at or before it.
    let low = 0;
    let high = Math.ceil(inode.size / blockBytes) - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const first = readDirents(await this.#directoryBlock(inode, middle))[0];
      if (first !== undefined && first.name > name) high = middle - 1;
      else low = middle;
    }
    if (inode.size === 0) return undefined;
    const found = readDirents(await this.#directoryBlock(inode, low)).find((dirent) => dirent.name === name);
    return found === undefined ? undefined : this.inode(found.nid);
  }

  /** Target of a symbolic link as a byte string. */
  async target(inode: ErofsInode): Promise<string> {
    if (inode.size > blockBytes) throw brokenImage('a symbolic link is too long');
    return (await this.read(inode, 0, inode.size)).toString('latin1');
  }

  async xattrs(inode: ErofsInode): Promise<Xattr[]> {
    if (inode.xattrBytes === 0) return [];
    const area = await this.#source.read(inode.xattrStart, inode.xattrBytes);
    return readXattrArea(area, this.#source, this.#xattrStart);
  }

  /** Bytes of a file, zeros for holes. The caller bounds `length`. */
  async read(inode: ErofsInode, offset: number, length: number): Promise<Buffer> {
    const end = Math.min(offset + length, inode.size);
    const parts: Buffer[] = [];
    for await (const extent of this.extents(inode, offset, end)) {
      parts.push(
        extent.position === undefined
          ? Buffer.alloc(extent.length)
          : await this.#source.read(extent.position, extent.length),
      );
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  /** Bytes at a position of the image that an extent named. */
  async readAt(position: number, length: number): Promise<Buffer> {
    return this.#source.read(position, length);
  }

  /** Where the bytes from `start` to `end` of a file are, in order and without gaps. */
  async *extents(inode: ErofsInode, start = 0, end = inode.size): AsyncGenerator<Extent, void, undefined> {
    if (start >= end) return;
    switch (inode.layout) {
      case layouts.plain:
        yield { offset: start, length: end - start, position: inode.specific * blockBytes + start };
        return;
      case layouts.inline:
        yield* inlineExtents(inode, start, end);
        return;
      case layouts.chunks:
        yield* this.#chunkExtents(inode, start, end);
        return;
      default:
        throw unsupported('way to store data');
    }
  }

  async #directoryBlock(inode: ErofsInode, block: number): Promise<Buffer> {
    if (inode.size > directoryBytesMax) throw brokenImage('a directory is too large');
    return this.read(inode, block * blockBytes, blockBytes);
  }

  async *#chunkExtents(
    inode: ErofsInode,
    start: number,
    end: number,
  ): AsyncGenerator<Extent, void, undefined> {
    const format = inode.specific & 0xffff;
    if ((format & ~(chunkBitsMask | chunkIndexes)) !== 0) throw unsupported('form of chunks');
    const chunkBytes = 2 ** (blockBits + (format & chunkBitsMask));
    const unit = (format & chunkIndexes) === 0 ? 4 : 8;
    const mapStart = alignUp(inode.xattrStart + inode.xattrBytes, unit);
    const last = Math.ceil(end / chunkBytes);
    let map = Buffer.alloc(0);
    let mapFirst = 0;
    for (let chunk = Math.floor(start / chunkBytes); chunk < last; chunk += 1) {
      if ((chunk - mapFirst) * unit >= map.length) {
        mapFirst = chunk;
        map = Buffer.from(
          await this.#source.read(mapStart + chunk * unit, Math.min(mapEntriesStep, last - chunk) * unit),
        );
      }
      const at = (chunk - mapFirst) * unit;
      if (unit === 8 && map.readUInt16LE(at + 2) !== 0) throw unsupported('set of devices');
      const block = map.readUInt32LE(unit === 8 ? at + 4 : at);
      const from = Math.max(start, chunk * chunkBytes);
      const to = Math.min(end, (chunk + 1) * chunkBytes);
      const position = block === nullBlock ? undefined : block * blockBytes + from - chunk * chunkBytes;
      yield { offset: from, length: to - from, position };
    }
  }
}

function* inlineExtents(inode: ErofsInode, start: number, end: number): Generator<Extent, void, undefined> {
  const tailStart = inode.size - (inode.size % blockBytes);
  if (start < tailStart) {
    const to = Math.min(end, tailStart);
    yield { offset: start, length: to - start, position: inode.specific * blockBytes + start };
  }
  const from = Math.max(start, tailStart);
  if (from < end) {
    const position = inode.xattrStart + inode.xattrBytes + from - tailStart;
    yield { offset: from, length: end - from, position };
  }
}

function unsupported(what: string): HerkosError {
  return new HerkosError('Unimplemented', `the EROFS image has a ${what} that is not read here`);
}
