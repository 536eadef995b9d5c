/**
 * Several device files as one: each becomes a directory `/0`, `/1`, … of a new image. Used when an
 * image has more layers than a VM gets devices; overlayfs takes directories of one mount as well.
 */
import { createHash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';

import { HerkosError } from '../../base/errors.js';
import { blockBytes, fileTypes } from '../../wire/erofs/format.js';
import { ErofsNode, defaultDirectory, xattrBytes } from '../../wire/erofs/node.js';
import type { FileData } from '../../wire/erofs/file-data.js';
import { ErofsReader } from '../../wire/erofs/reader.js';
import type { ErofsInode } from '../../wire/erofs/reader.js';
import { brokenImage } from '../../wire/erofs/source.js';
import { layouts } from '../../wire/erofs/format.js';
import { ErofsWriter } from '../../wire/erofs/writer.js';
import { DeviceFile } from './device-file.js';
import { openDescriptor } from './device-source.js';
import { uuidOf } from './layer-builder.js';
import { LimitGuard } from './limits.js';
import type { ConvertLimits, JoinResult } from './types.js';

const copyBytes = 1024 * 1024;
/** A file with holes is copied in pieces of this size; those without anything in them are left out. */
const emptyPiece = Buffer.alloc(blockBytes);
/** Let an abort message in after so many entries. */
const entriesBetweenTurns = 256;

/** Runs in a worker; the temporary file is the caller's to remove when this throws. */
export async function joinDevices(
  files: readonly string[],
  temporaryPath: string,
  limits: Partial<ConvertLimits>,
  signal: AbortSignal,
): Promise<JoinResult> {
  const guard = new LimitGuard(limits);
  const file = new DeviceFile(temporaryPath, guard.limits.freeBytesMin);
  try {
    const writer = new ErofsWriter(file.writeAt);
    const root = defaultDirectory();
    const hash = createHash('sha256');
    for (const [index, path] of files.entries()) {
      const descriptor = openSync(path, 'r');
      try {
        const reader = await ErofsReader.open(await openDescriptor(descriptor));
        hash.update(reader.uuid);
        root.children?.set(String(index), await new Copy(reader, writer, guard, signal).tree());
      } finally {
        closeSync(descriptor);
      }
    }
    const uuid = uuidOf(hash.digest());
    const { imageBytes } = writer.finish(root, uuid);
    guard.checkImage(imageBytes);
    const deviceBytes = file.finish(imageBytes, uuid);
    return { deviceBytes, entries: guard.entries, subdirs: files.map((_path, index) => String(index)) };
  } finally {
    file.close();
  }
}

class Copy {
  readonly #reader: ErofsReader;
  readonly #writer: ErofsWriter;
  readonly #guard: LimitGuard;
  readonly #signal: AbortSignal;
  /** Nodes that may have more names. */
  readonly #linked = new Map<number, ErofsNode>();
  readonly #directories = new Set<number>();

  constructor(reader: ErofsReader, writer: ErofsWriter, guard: LimitGuard, signal: AbortSignal) {
    this.#reader = reader;
    this.#writer = writer;
    this.#guard = guard;
    this.#signal = signal;
  }

  async tree(): Promise<ErofsNode> {
    const rootInode = await this.#reader.inode(this.#reader.rootNid);
    const root = await this.#node(rootInode);
    const waiting = [{ inode: rootInode, node: root }];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      if (this.#directories.has(next.inode.nid)) throw brokenImage('a directory is its own descendant');
      this.#directories.add(next.inode.nid);
      for await (const { name, nid } of this.#reader.directory(next.inode)) {
        await this.#pause();
        this.#guard.addEntry();
        this.#guard.addMetadata(name.length);
        const known = this.#linked.get(nid);
        if (known !== undefined) {
          next.node.children?.set(name, known);
          continue;
        }
        const inode = await this.#reader.inode(nid);
        const node = await this.#node(inode);
        if (node.isDirectory) waiting.push({ inode, node });
        else if (inode.links > 1) this.#linked.set(nid, node);
        next.node.children?.set(name, node);
      }
    }
    return root;
  }

  /** An abort arrives as a message, which needs a turn of the event loop. */
  async #pause(): Promise<void> {
    if (this.#guard.entries % entriesBetweenTurns === 0)
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    if (this.#signal.aborted) throw new HerkosError('Cancelled', 'the join was stopped');
  }

  async #node(inode: ErofsInode): Promise<ErofsNode> {
    const node = new ErofsNode(inode);
    const attributes = await this.#reader.xattrs(inode);
    if (attributes.length > 0) node.xattrs = attributes;
    for (const attribute of attributes) this.#guard.addMetadata(xattrBytes(attribute));
    switch (inode.mode & fileTypes.mask) {
      case fileTypes.regular:
        await this.#data(inode, node);
        break;
      case fileTypes.symlink:
        node.target = await this.#reader.target(inode);
        node.size = inode.size;
        break;
      case fileTypes.char:
      case fileTypes.block:
        node.device = inode.device;
        break;
      default:
    }
    return node;
  }

  async #data(inode: ErofsInode, node: ErofsNode): Promise<void> {
    node.size = inode.size;
    const hasHoles = inode.layout === layouts.chunks;
    const data = this.#writer.beginData(node, hasHoles);
    for await (const extent of this.#reader.extents(inode)) {
      if (extent.position === undefined) continue;
      for (let at = 0; at < extent.length; at += copyBytes) {
        const length = Math.min(copyBytes, extent.length - at);
        this.#guard.addUncompressed(0);
        const bytes = await this.#reader.readAt(extent.position + at, length);
        if (hasHoles) writeFull(data, bytes, extent.offset + at);
        else data.write(bytes, extent.offset + at);
        this.#guard.checkImage(this.#writer.position);
        if (this.#signal.aborted) throw new HerkosError('Cancelled', 'the join was stopped');
      }
    }
    data.end();
  }
}

/**
 * A chunk with one byte in it is a hole but for one block on the disk that it is read from: written whole, a few
 * kilobytes of an archive would take gigabytes.
 */
function writeFull(data: FileData, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length; at += emptyPiece.length) {
    const piece = bytes.subarray(at, at + emptyPiece.length);
    if (!piece.equals(emptyPiece.subarray(0, piece.length))) data.write(piece, position + at);
  }
}
