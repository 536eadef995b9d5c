/** A device file as a flat table, for comparisons. */
import { open } from 'node:fs/promises';

import { openHandle } from '../../../../lib/image/convert/device-source.js';
import { decodeDevice, fileTypes } from '../../../../lib/wire/erofs/format.js';
import { ErofsReader } from '../../../../lib/wire/erofs/reader.js';
import type { ErofsInode } from '../../../../lib/wire/erofs/reader.js';

export interface Row {
  readonly type: string;
  readonly mode: number;
  readonly owner: string;
  readonly links: number;
  /** Text of a file, target of a link, number of a device. */
  readonly content: string;
  readonly xattrs: Readonly<Record<string, string>>;
}

/** Rows by path; the root is ''. */
export async function tableOf(devicePath: string): Promise<Record<string, Row>> {
  const handle = await open(devicePath, 'r');
  try {
    const reader = await ErofsReader.open(await openHandle(handle));
    const table: Record<string, Row> = {};
    const walk = async (path: string, inode: ErofsInode): Promise<void> => {
      table[path] = await row(reader, inode);
      if ((inode.mode & fileTypes.mask) !== fileTypes.directory) return;
      for await (const { name, nid } of reader.directory(inode))
        await walk(path === '' ? name : `${path}/${name}`, await reader.inode(nid));
    };
    await walk('', await reader.inode(reader.rootNid));
    return table;
  } finally {
    await handle.close();
  }
}

async function row(reader: ErofsReader, inode: ErofsInode): Promise<Row> {
  const type = inode.mode & fileTypes.mask;
  const names = Object.entries(fileTypes).find(([, bits]) => bits === type);
  let content = '';
  if (type === fileTypes.regular) content = (await reader.read(inode, 0, inode.size)).toString('latin1');
  if (type === fileTypes.symlink) content = await reader.target(inode);
  if (type === fileTypes.char || type === fileTypes.block) {
    const { major, minor } = decodeDevice(inode.device);
    content = `${String(major)}:${String(minor)}`;
  }
  const xattrs = (await reader.xattrs(inode)).map(
    ({ name, value }) => [name, value.toString('latin1')] as const,
  );
  return {
    type: names?.[0] ?? '?',
    mode: inode.mode & 0o7777,
    owner: `${String(inode.uid)}:${String(inode.gid)}`,
    links: inode.links,
    content,
    xattrs: Object.fromEntries(xattrs),
  };
}
