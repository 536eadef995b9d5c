/**
 * Writes an uncompressed EROFS image in one pass: file data goes out as it arrives, metadata is kept
 * in memory and follows at the end, the superblock comes last.
 *
 *     block 0        1 …                                    meta_blkaddr …
 *     | superblock | file data | directory and link data | unused slot, root inode, other inodes |
 *
 * The root inode is the first of the metadata, so that its number fits the 16 bits it has. The same
 * tree and data always give the same bytes.
 */
import { HerkosError } from '../../base/errors.js';
import { crc32c } from './crc32c.js';
import { directoryBytes, encodeDirectory, sortedEntries } from './directory.js';
import { PlainData, SparseData, imageBytesMax } from './file-data.js';
import type { FileData } from './file-data.js';
import {
  blockBits,
  blockBytes,
  featureCompat,
  featureIncompat,
  slotBytes,
  superBytes,
  superMagic,
  superOffset,
} from './format.js';
import { encodeInode, layoutOf, outsideBlocks, placeInode } from './inode.js';
import type { CommonTime } from './inode.js';
import type { ErofsNode } from './node.js';
import { SequentialOutput } from './output.js';
import type { WriteAt } from './output.js';

export interface ErofsSummary {
  /** Bytes of the image, a multiple of the block size. */
  readonly imageBytes: number;
  readonly inodes: number;
}

/** A node on its way to disk. */
interface Placed {
  readonly node: ErofsNode;
  readonly parent: ErofsNode;
}

export class ErofsWriter {
  readonly #writeAt: WriteAt;
  readonly #output: SequentialOutput;
  #sparse = false;

  /** `writeAt` gets positions relative to the image's start; nothing is written twice. */
  constructor(writeAt: WriteAt) {
    this.#writeAt = writeAt;
    this.#output = new SequentialOutput(writeAt, blockBytes);
  }

  /** Bytes of the image so far. */
  get position(): number {
    return this.#output.position;
  }

  /** Begins the data of a regular file whose `size` is set; it must end before the next begins. */
  beginData(node: ErofsNode, withHoles: boolean): FileData {
    if (!withHoles || node.size === 0) return new PlainData(this.#output, node);
    this.#sparse = true;
    return new SparseData(this.#output, node);
  }

  /** Writes all metadata of the tree below `root`. `uuid` has 16 bytes. */
  finish(root: ErofsNode, uuid: Uint8Array): ErofsSummary {
    const placed = collect(root);
    const common = commonTime(placed);
    this.#output.alignToBlock();
    const { metaStart } = this.#layout(placed, common);
    this.#writeOutside(placed, common);
    this.#writeInodes(placed, common, metaStart);
    this.#output.alignToBlock();
    this.#output.flush();
    const imageBytes = this.#output.position;
    this.#writeSuper(root, uuid, { imageBytes, inodes: placed.length, metaStart, common });
    return { imageBytes, inodes: placed.length };
  }

  /** Gives every node its number and its blocks. */
  #layout(placed: readonly Placed[], common: CommonTime): { readonly metaStart: number } {
    let block = this.#output.position / blockBytes;
    let position = slotBytes;
    for (const { node, parent } of placed) {
      if (node.isDirectory) node.size = directoryBytes(sortedEntries(node, parent));
      const layout = layoutOf(node, common);
      const outside = outsideBlocks(node, layout);
      if (outside > 0) {
        node.startBlock = block;
        block += outside;
      }
      const start = placeInode(position, layout);
      node.nid = start / slotBytes;
      position = start + layout.recordBytes + layout.xattrBytes + layout.tailBytes;
    }
    const metaStart = block * blockBytes;
    if (metaStart + position > imageBytesMax)
      throw new HerkosError('ResourceExhausted', 'the image would be larger than its format allows');
    return { metaStart };
  }

  /** Data of directories and symbolic links that is not beside the inode. */
  #writeOutside(placed: readonly Placed[], common: CommonTime): void {
    for (const { node, parent } of placed) {
      const blocks = outsideBlocks(node, layoutOf(node, common));
      if (blocks === 0) continue;
      this.#output.alignToBlock();
      this.#output.append(contentOf(node, parent).subarray(0, blocks * blockBytes));
    }
    this.#output.alignToBlock();
  }

  #writeInodes(placed: readonly Placed[], common: CommonTime, metaStart: number): void {
    let number = 0;
    for (const { node, parent } of placed) {
      number += 1;
      const layout = layoutOf(node, common);
      this.#output.advanceTo(metaStart + node.nid * slotBytes);
      this.#output.append(encodeInode(node, layout, number));
      if (layout.tailBytes === 0) continue;
      if (node.chunks !== undefined) this.#output.append(encodeMap(node.chunks.blocks));
      else this.#output.append(contentOf(node, parent).subarray(-layout.tailBytes));
    }
  }

  #writeSuper(
    root: ErofsNode,
    uuid: Uint8Array,
    facts: ErofsSummary & { readonly metaStart: number; readonly common: CommonTime },
  ): void {
    const block = Buffer.alloc(blockBytes);
    const superblock = block.subarray(superOffset, superOffset + superBytes);
    superblock.writeUInt32LE(superMagic, 0);
    superblock.writeUInt32LE(featureCompat.superChecksum | featureCompat.mtime, 8);
    superblock[12] = blockBits;
    superblock.writeUInt16LE(root.nid, 14);
    superblock.writeBigUInt64LE(BigInt(facts.inodes), 16);
    superblock.writeBigInt64LE(BigInt(facts.common.sec), 24);
    superblock.writeUInt32LE(facts.common.nsec, 32);
    superblock.writeUInt32LE(facts.imageBytes / blockBytes, 36);
    superblock.writeUInt32LE(facts.metaStart / blockBytes, 40);
    superblock.set(uuid.subarray(0, 16), 48);
    superblock.writeUInt32LE(this.#sparse ? featureIncompat.chunkedFile : 0, 80);
    // The checksum covers the rest of the first block, with its own field as zero.
    superblock.writeUInt32LE(crc32c(0xffff_ffff, block.subarray(superOffset)), 4);
    this.#writeAt(block, 0);
  }
}

/** All inodes, each once, parents before children, in the order of names; counts the links. */
function collect(root: ErofsNode): Placed[] {
  const placed: Placed[] = [];
  const waiting: Placed[] = [{ node: root, parent: root }];
  root.links = 2;
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    placed.push(next);
    const { node } = next;
    const children = [...(node.children ?? [])].sort(([a], [b]) => (a < b ? 1 : -1));
    for (const [, child] of children) {
      if (child.isDirectory) {
        child.links = 2;
        node.links += 1;
      } else {
        child.links += 1;
        if (child.links > 1) continue;
      }
      waiting.push({ node: child, parent: node });
    }
  }
  return placed;
}

/** The most frequent time: the inodes that have it can be short. */
function commonTime(placed: readonly Placed[]): CommonTime {
  const counts = new Map<number, number>();
  let best = 0;
  let bestCount = 0;
  for (const { node } of placed) {
    if (node.mtimeNsec !== 0) continue;
    const count = (counts.get(node.mtimeSec) ?? 0) + 1;
    counts.set(node.mtimeSec, count);
    if (count > bestCount) {
      best = node.mtimeSec;
      bestCount = count;
    }
  }
  return { sec: best, nsec: 0 };
}

function contentOf(node: ErofsNode, parent: ErofsNode): Buffer {
  if (node.target !== undefined) return Buffer.from(node.target, 'latin1');
  return encodeDirectory(sortedEntries(node, parent), node.size);
}

function encodeMap(blocks: Uint32Array): Buffer {
  const data = Buffer.alloc(blocks.length * 4);
  blocks.forEach((block, index) => data.writeUInt32LE(block, index * 4));
  return data;
}
