/**
 * The archive that the kernel unpacks as its first root file system: cpio in the "newc" form
 * (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
 */
import type { Tree, TreeEntry } from './tree.js';

const typeBits = { directory: 0o040000, file: 0o100000, link: 0o120000 } as const;

/** Equal trees give equal bytes: numbered in order, owner root, time zero. */
export function writeCpio(tree: Tree): Buffer {
  const parts: Buffer[] = [];
  tree.entries().forEach((entry, index) => {
    const data = content(entry);
    const mode = typeBits[entry.kind] | (entry.kind === 'link' ? 0o777 : entry.mode);
    // The archive's paths are relative to the root it is unpacked in.
    parts.push(header(index + 1, mode, entry.path.slice(1), data.length), padded(data));
  });
  parts.push(header(0, 0, 'TRAILER!!!', 0));
  return Buffer.concat(parts);
}

function content(entry: TreeEntry): Buffer {
  switch (entry.kind) {
    case 'directory':
      return Buffer.alloc(0);
    case 'file':
      return entry.data;
    case 'link':
      return Buffer.from(entry.target);
  }
}

/** Magic, then thirteen numbers of eight hex digits, then the name with its zero; a multiple of four bytes. */
function header(inode: number, mode: number, name: string, fileBytes: number): Buffer {
  const nameBytes = Buffer.byteLength(name) + 1;
  const [uid, gid, links, time, device, checksum] = [0, 0, 1, 0, 0, 0];
  const numbers = [
    inode,
    mode,
    uid,
    gid,
    links,
    time,
    fileBytes,
    device,
    device,
    device,
    device,
    nameBytes,
    checksum,
  ];
  const digits = numbers.map((number) => number.toString(16).padStart(8, '0')).join('');
  return padded(Buffer.from(`070701${digits}${name}\0`));
}

function padded(bytes: Buffer): Buffer {
  const missing = (4 - (bytes.length % 4)) % 4;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
