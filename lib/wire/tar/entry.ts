/**
 * What a tar archive holds, free of the many ways in which archives spell it.
 *
 * Names are byte strings: one character (0-255) for each byte, since file names have no encoding.
 */

export type TarEntryType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

export interface TarXattr {
  /** Byte string with its prefix, such as `security.capability`. */
  readonly name: string;
  readonly value: Buffer;
}

/** A part of a sparse file that has data; what lies between the parts is a hole. */
export interface TarSegment {
  readonly offset: number;
  readonly length: number;
}

export interface TarEntry {
  readonly type: TarEntryType;
  /** As the archive has it: not normalised, possibly absolute or with `..`. */
  readonly path: string;
  /** Target of a symbolic or hard link, else ''. */
  readonly linkPath: string;
  /** Permission bits, set-id and sticky bits: 0-0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Size of the file as a reader sees it, holes included; 0 when not a file. */
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly xattrs: readonly TarXattr[];
  /** Ascending and disjoint; undefined for a file without holes. */
  readonly segments: readonly TarSegment[] | undefined;
}

/** Receives the archive in order. What a method throws ends the parse. */
export interface TarHandler {
  entry(entry: TarEntry): void;
  /** Data of the last entry at `position` of the file; `chunk` is only valid during the call. */
  data(chunk: Buffer, position: number): void;
  /** The last entry's data is complete; called for every entry. */
  entryEnd(): void;
}

/** Bytes of a path, as Linux has it (PATH_MAX), and of one of its components (NAME_MAX). */
export const pathBytesMax = 4096;
export const componentBytesMax = 255;
/** Bytes of one extended header; GNU tar and Go's archive/tar have limits of the same size. */
export const extendedHeaderBytesMax = 1024 * 1024;
/** Parts of one sparse file. */
export const segmentsMax = 1024 * 1024;

/** A byte string as a reader wants to see it in a message. */
export function showName(name: string): string {
  const text = Buffer.from(name, 'latin1').toString('utf8');
  const short = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return JSON.stringify(short);
}
