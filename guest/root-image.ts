/** The guest's root file system as a device file: an EROFS image behind the head that lets a guest map it. */
import { createHash } from 'node:crypto';

import { roundUp } from '../lib/base/units.js';
import { fileTypes } from '../lib/wire/erofs/format.js';
import { ErofsNode, defaultDirectory } from '../lib/wire/erofs/node.js';
import { deviceBytesFor, deviceHead, deviceHeadBytes } from '../lib/wire/erofs/pfn-info.js';
import { ErofsWriter } from '../lib/wire/erofs/writer.js';
import type { Tree, TreeEntry } from './tree.js';

/** Equal trees give equal bytes; the image's UUID is made of its content. */
export function rootDeviceFile(tree: Tree): Buffer {
  const entries = tree.entries();
  const uuid = contentUuid(entries);
  const image = erofsImage(entries, uuid);
  const device = Buffer.alloc(deviceBytesFor(image.length));
  deviceHead(device.length, uuid).copy(device);
  image.copy(device, deviceHeadBytes);
  return device;
}

function erofsImage(entries: readonly TreeEntry[], uuid: Buffer): Buffer {
  let image = Buffer.alloc(1024 * 1024);
  const writer = new ErofsWriter((data, position) => {
    const end = position + data.length;
    if (end > image.length) image = Buffer.concat([image, Buffer.alloc(roundUp(end, image.length))]);
    image.set(data, position);
  });
  const root = defaultDirectory();
  const directories = new Map([['', root]]);
  for (const entry of entries) {
    const slash = entry.path.lastIndexOf('/');
    const node = makeNode(entry, writer);
    directories.get(entry.path.slice(0, slash))?.children?.set(entry.path.slice(slash + 1), node);
    if (entry.kind === 'directory') directories.set(entry.path, node);
  }
  const { imageBytes } = writer.finish(root, uuid);
  return image.subarray(0, imageBytes);
}

function makeNode(entry: TreeEntry, writer: ErofsWriter): ErofsNode {
  switch (entry.kind) {
    case 'directory':
      return plainNode(fileTypes.directory | entry.mode);
    case 'link': {
      const node = plainNode(fileTypes.symlink | 0o777);
      node.target = Buffer.from(entry.target).toString('latin1');
      node.size = Buffer.byteLength(entry.target);
      return node;
    }
    case 'file': {
      const node = plainNode(fileTypes.regular | entry.mode);
      node.size = entry.data.length;
      const data = writer.beginData(node, false);
      data.write(entry.data, 0);
      data.end();
      return node;
    }
  }
}

function plainNode(mode: number): ErofsNode {
  return new ErofsNode({ mode, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
}

function contentUuid(entries: readonly TreeEntry[]): Buffer {
  const hash = createHash('sha256');
  for (const entry of entries) {
    const { kind, path } = entry;
    hash.update(JSON.stringify([kind, path, kind === 'link' ? entry.target : entry.mode]));
    if (kind === 'file') hash.update(createHash('sha256').update(entry.data).digest());
  }
  const uuid = hash.digest().subarray(0, 16);
  // Version 8, "custom", and the RFC 9562 variant.
  uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6);
  uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8);
  return uuid;
}
