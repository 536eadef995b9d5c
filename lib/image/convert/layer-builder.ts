/** From the bytes of a tar to a device file: the synchronous heart of a conversion. */
import { createHash } from 'node:crypto';

import { ErofsNode } from '../../wire/erofs/node.js';
import { splitXattrName, xattrBytes } from '../../wire/erofs/node.js';
import type { Xattr } from '../../wire/erofs/node.js';
import { chunkMapBytes } from '../../wire/erofs/file-data.js';
import type { FileData } from '../../wire/erofs/file-data.js';
import { encodeDevice, fileTypes, xattrAreaBytesMax, xattrHeaderBytes } from '../../wire/erofs/format.js';
import { ErofsWriter } from '../../wire/erofs/writer.js';
import type { TarEntry, TarEntryType, TarHandler } from '../../wire/tar/entry.js';
import { TarParser } from '../../wire/tar/parser.js';
import type { DeviceFile } from './device-file.js';
import { LayerTree, componentsOf, isWhiteout, refuse } from './layer-tree.js';
import type { LimitGuard } from './limits.js';

const whiteoutPrefix = '.wh.';
const metaPrefix = '.wh..wh.';
const opaqueName = '.wh..wh..opq';
const opaqueXattr: Xattr = { name: 'trusted.overlay.opaque', value: Buffer.from('y') };
/** What overlayfs keeps for itself; from an archive it could make the guest's kernel look elsewhere. */
const overlayPrefixes = ['trusted.overlay.', 'user.overlay.'];
/** What one attribute takes in memory beside its bytes, roughly. */
const xattrObjectBytes = 256;
/** Linux: a link's target is shorter than PATH_MAX. */
const targetBytesMax = 4095;

const typeBits: Readonly<Record<Exclude<TarEntryType, 'link'>, number>> = {
  file: fileTypes.regular,
  symlink: fileTypes.symlink,
  char: fileTypes.char,
  block: fileTypes.block,
  directory: fileTypes.directory,
  fifo: fileTypes.fifo,
};

export interface BuiltLayer {
  readonly diffId: string;
  readonly deviceBytes: number;
}

export class LayerBuilder implements TarHandler {
  readonly #file: DeviceFile;
  readonly #guard: LimitGuard;
  readonly #absoluteNames: 'refuse' | 'strip';
  readonly #hash = createHash('sha256');
  readonly #writer: ErofsWriter;
  readonly #parser = new TarParser(this);
  readonly #tree = new LayerTree((name) => {
    this.#guard.addEntry();
    this.#guard.addMetadata(name.length);
  });
  #data: FileData | undefined;

  constructor(file: DeviceFile, guard: LimitGuard, absoluteNames: 'refuse' | 'strip') {
    this.#file = file;
    this.#guard = guard;
    this.#absoluteNames = absoluteNames;
    this.#writer = new ErofsWriter(file.writeAt);
  }

  /** Takes the next bytes of the uncompressed tar. */
  push(chunk: Buffer): void {
    this.#guard.addUncompressed(chunk.length);
    this.#hash.update(chunk);
    this.#parser.push(chunk);
    this.#guard.checkImage(this.#writer.position);
  }

  /**
   * Ends the archive and finishes the file. The image's UUID is made of the digest, so the same layer
   * always gives the same bytes. `verify` sees the digest before anything is finished.
   */
  finish(verify: (diffId: string) => void): BuiltLayer {
    this.#parser.finish();
    const digest = this.#hash.digest();
    const diffId = `sha256:${digest.toString('hex')}`;
    verify(diffId);
    for (const directory of this.#tree.opaque) directory.xattrs = [...(directory.xattrs ?? []), opaqueXattr];
    const uuid = uuidOf(digest);
    const { imageBytes } = this.#writer.finish(this.#tree.root, uuid);
    this.#guard.checkImage(imageBytes);
    return { diffId, deviceBytes: this.#file.finish(imageBytes, uuid) };
  }

  entry(entry: TarEntry): void {
    this.#guard.addEntry();
    const components = componentsOf(entry.path, this.#absoluteNames);
    const name = components.at(-1);
    for (const part of components.slice(0, -1))
      if (part.startsWith(whiteoutPrefix)) throw refuse(entry.path, 'is below a whiteout');
    if (name === undefined) {
      if (entry.type !== 'directory')
        throw refuse(entry.path, 'replaces the root by something that is not a directory');
      this.#setRoot(entry);
      return;
    }
    this.#guard.addMetadata(name.length + entry.linkPath.length);
    const parent = this.#tree.directory(components.slice(0, -1), entry.path);
    if (name.startsWith(whiteoutPrefix)) this.#whiteout(parent, name, entry);
    else if (entry.type === 'link') this.#link(parent, name, entry);
    else this.#put(parent, name, entry, entry.type);
  }

  data(chunk: Buffer, position: number): void {
    this.#data?.write(chunk, position);
  }

  entryEnd(): void {
    this.#data?.end();
    this.#data = undefined;
  }

  #setRoot(entry: TarEntry): void {
    const { root } = this.#tree;
    root.mode = fileTypes.directory | entry.mode;
    root.uid = entry.uid;
    root.gid = entry.gid;
    root.mtimeSec = entry.mtimeSec;
    root.mtimeNsec = entry.mtimeNsec;
    root.xattrs = this.#xattrs(entry);
  }

  #whiteout(parent: ErofsNode, name: string, entry: TarEntry): void {
    if (name === opaqueName) {
      this.#tree.markOpaque(parent);
      return;
    }
    // Bookkeeping of aufs, which says nothing about the image.
    if (name.startsWith(metaPrefix)) return;
    const hidden = name.slice(whiteoutPrefix.length);
    if (hidden === '' || hidden === '.' || hidden === '..')
      throw refuse(entry.path, 'is a whiteout of nothing');
    const node = new ErofsNode({ mode: fileTypes.char, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
    this.#tree.whiteout(parent, hidden, node);
  }

  #link(parent: ErofsNode, name: string, entry: TarEntry): void {
    // An absolute target means the image's root, as every runtime reads it.
    const target = this.#tree.find(componentsOf(entry.linkPath, 'strip'), entry.path);
    if (target === undefined || isWhiteout(target))
      throw refuse(entry.path, 'is a hard link to a file that this layer does not have');
    if (target.isDirectory) throw refuse(entry.path, 'is a hard link to a directory');
    this.#tree.put(parent, name, target);
  }

  #put(parent: ErofsNode, name: string, entry: TarEntry, type: Exclude<TarEntryType, 'link'>): void {
    const node = new ErofsNode({
      mode: typeBits[type] | entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      mtimeSec: entry.mtimeSec,
      mtimeNsec: entry.mtimeNsec,
    });
    node.xattrs = this.#xattrs(entry);
    if (type === 'symlink') setTarget(node, entry);
    if (type === 'char' || type === 'block') {
      if (
        entry.deviceMajor > 0xfff ||
        entry.deviceMinor > 0xfffff ||
        entry.deviceMajor < 0 ||
        entry.deviceMinor < 0
      )
        throw refuse(entry.path, 'is a device with a number that Linux does not have');
      node.device = encodeDevice(entry.deviceMajor, entry.deviceMinor);
    }
    this.#tree.put(parent, name, node);
    if (type === 'file') this.#beginData(node, entry);
  }

  #beginData(node: ErofsNode, entry: TarEntry): void {
    node.size = entry.size;
    if (entry.segments !== undefined) this.#guard.addMetadata(chunkMapBytes(entry.size));
    this.#data = this.#writer.beginData(node, entry.segments !== undefined);
  }

  #xattrs(entry: TarEntry): readonly Xattr[] | undefined {
    const kept = entry.xattrs.filter(
      ({ name }) =>
        splitXattrName(name) !== undefined && !overlayPrefixes.some((prefix) => name.startsWith(prefix)),
    );
    let bytes = 0;
    for (const attribute of kept) bytes += xattrBytes(attribute);
    if (bytes > xattrAreaBytesMax - xattrHeaderBytes - xattrBytes(opaqueXattr))
      throw refuse(entry.path, `has more than ${String(xattrAreaBytesMax)} bytes of extended attributes`);
    this.#guard.addMetadata(bytes + xattrObjectBytes * kept.length);
    return kept.length === 0 ? undefined : kept;
  }
}

function setTarget(node: ErofsNode, entry: TarEntry): void {
  if (entry.linkPath === '') throw refuse(entry.path, 'is a symbolic link to nothing');
  if (entry.linkPath.length > targetBytesMax)
    throw refuse(entry.path, `is a symbolic link to a path of more than ${String(targetBytesMax)} bytes`);
  node.target = entry.linkPath;
  node.size = entry.linkPath.length;
}

/** A version 8 (custom) UUID, RFC 9562, from a digest. */
export function uuidOf(digest: Buffer): Buffer {
  const uuid = Buffer.from(digest.subarray(0, 16));
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  return uuid;
}
