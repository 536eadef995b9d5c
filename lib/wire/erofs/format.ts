/**
 * The on-disk format of EROFS, as far as uncompressed images need it.
 * Source: the kernel's on-disk definition (fs/erofs/erofs_fs.h, dual licensed GPL-2.0 OR Apache-2.0)
 * and Documentation/filesystems/erofs.rst. All numbers are little-endian.
 */
export const blockBits = 12;
export const blockBytes = 1 << blockBits;
/** Inode numbers (nid) count slots of this size from the start of the metadata area. */
export const slotBytes = 32;

export const superOffset = 1024;
export const superBytes = 128;
export const superMagic = 0xe0f5e1e2;

export const featureCompat = { superChecksum: 1, mtime: 2 } as const;
export const featureIncompat = { chunkedFile: 4 } as const;

/** How an inode's data is found (i_format, bits 1-3). */
export const layouts = { plain: 0, inline: 2, chunks: 4 } as const;

export const compactInodeBytes = 32;
export const extendedInodeBytes = 64;

/** `i_u.c.format` of a chunk-based file: bits 0-4 are log2 of the blocks in a chunk. */
export const chunkBitsMask = 0x1f;
/** Entries are 8-byte indexes with a device number, not 4-byte block addresses. */
export const chunkIndexes = 0x20;
/** A chunk that is a hole. */
export const nullBlock = 0xffff_ffff;

export const direntBytes = 12;
export const nameBytesMax = 255;

export const xattrHeaderBytes = 12;
export const xattrEntryBytes = 4;
/** e_value_size has 16 bits. */
export const xattrValueBytesMax = 0xffff;
/** i_xattr_icount has 16 bits and counts 4-byte units after the header. */
export const xattrAreaBytesMax = xattrHeaderBytes + 4 * 0xfffe;

/** e_name_index: the prefix stands for these bytes of the name. Longer prefixes come first where one contains another. */
export const xattrPrefixes: readonly { readonly index: number; readonly prefix: string }[] = [
  { index: 2, prefix: 'system.posix_acl_access' },
  { index: 3, prefix: 'system.posix_acl_default' },
  { index: 1, prefix: 'user.' },
  { index: 4, prefix: 'trusted.' },
  { index: 6, prefix: 'security.' },
];

/** File types in st_mode (inode(7)) and the types that directory entries carry for them. */
export const fileTypes = {
  mask: 0o170000,
  socket: 0o140000,
  symlink: 0o120000,
  regular: 0o100000,
  block: 0o060000,
  directory: 0o040000,
  char: 0o020000,
  fifo: 0o010000,
} as const;

/** FT_* of a dirent for an st_mode. */
export function direntType(mode: number): number {
  switch (mode & fileTypes.mask) {
    case fileTypes.regular:
      return 1;
    case fileTypes.directory:
      return 2;
    case fileTypes.char:
      return 3;
    case fileTypes.block:
      return 4;
    case fileTypes.fifo:
      return 5;
    case fileTypes.socket:
      return 6;
    case fileTypes.symlink:
      return 7;
    default:
      return 0;
  }
}

/** The kernel's 32-bit device number (new_encode_dev): 12 bits of major, 20 of minor. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

export function decodeDevice(device: number): { readonly major: number; readonly minor: number } {
  return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) };
}

/** Rounds up to a power of two. */
export function alignUp(value: number, step: number): number {
  const rest = value % step;
  return rest === 0 ? value : value + step - rest;
}
