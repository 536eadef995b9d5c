/** From a header block and what extends it to one entry: who wins, and what the numbers mean. */
import { pathBytesMax } from './entry.js';
import type { TarEntry, TarEntryType, TarSegment } from './entry.js';
import { blockBytes, broken } from './header.js';
import type { RawHeader } from './header.js';
import { paxNumber, paxTime, paxXattrs } from './pax.js';
import type { PaxRecords } from './pax.js';
import { hasLeadingMap, readSegmentList } from './sparse.js';
import type { LeadingMapReader } from './sparse.js';

/** Everything that stands before an entry and belongs to it. */
export interface Extensions {
  readonly pax: PaxRecords;
  /** Segments of PAX sparse format 0.0, whose keys repeat. */
  readonly segments: TarSegment[];
  longPath: string | undefined;
  longLink: string | undefined;
}

/** The sparse map of the old GNU format. */
export interface OldSparse {
  readonly segments: TarSegment[];
  readonly realSize: number;
}

export interface BuiltEntry {
  readonly entry: TarEntry;
  /** Bytes of data in the archive, without a map in front of them. */
  readonly storedBytes: number;
  readonly paddingBytes: number;
}

export function noExtensions(): Extensions {
  return { pax: new Map(), segments: [], longPath: undefined, longLink: undefined };
}

/** Bytes from the end of `size` bytes to the next block boundary. */
export function paddingOf(size: number): number {
  return (blockBytes - (size % blockBytes)) % blockBytes;
}

const types: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/**
 * Builds the entry, or asks for the sparse map of PAX format 1.0 first.
 * @throws HerkosError `DataLoss` when a value is not one, or the type is unknown.
 */
export function buildEntry(
  header: RawHeader,
  globals: PaxRecords,
  extensions: Extensions,
  old: OldSparse | undefined,
  map: LeadingMapReader | undefined,
): BuiltEntry | 'needs-leading-map' {
  const pax = merge(globals, extensions.pax);
  const path = pathOf(header, extensions, pax);
  const type = typeOf(header, path);
  const stored = paxNumber(pax, 'size') ?? header.size;
  // Only files have data: what other types state as a size is not there (POSIX; a hard link's may be the target's).
  if (type !== 'file')
    return { entry: plain(header, pax, type, path, extensions.longLink, 0), storedBytes: 0, paddingBytes: 0 };
  if (hasLeadingMap(pax) && map === undefined) return 'needs-leading-map';
  const storedBytes = stored - (map?.mapBytes ?? 0);
  if (storedBytes < 0) throw broken('a sparse map is longer than its entry');
  const segments = segmentsOf(extensions, pax, old, map);
  const size = segments === undefined ? stored : realSizeOf(pax, old);
  const entry = plain(header, pax, type, path, undefined, size);
  return {
    entry: segments === undefined ? entry : { ...entry, segments },
    storedBytes,
    paddingBytes: paddingOf(stored),
  };
}

/** Bytes that an entry takes in the archive, a map in front of its data included. */
export function storedSizeOf(header: RawHeader, globals: PaxRecords, extensions: Extensions): number {
  return paxNumber(extensions.pax.has('size') ? extensions.pax : globals, 'size') ?? header.size;
}

function merge(globals: PaxRecords, local: PaxRecords): PaxRecords {
  if (globals.size === 0) return local;
  return new Map([...globals, ...local]);
}

function pathOf(header: RawHeader, extensions: Extensions, pax: PaxRecords): string {
  const path =
    nonEmpty(pax.get('GNU.sparse.name')) ?? nonEmpty(pax.get('path')) ?? extensions.longPath ?? header.path;
  return checkedPath(path);
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

function checkedPath(path: string): string {
  if (path.length > pathBytesMax) throw broken(`a path is longer than ${String(pathBytesMax)} bytes`);
  if (path.includes('\0')) throw broken('a path has a NUL byte in it');
  return path;
}

function typeOf(header: RawHeader, path: string): TarEntryType {
  const type = types[header.typeFlag];
  if (type === undefined)
    throw broken(
      `an entry has the unknown type ${JSON.stringify(header.typeFlag)}; only files, links and devices are taken`,
    );
  // V7 archives have no type for directories: a name that ends in a slash is one.
  if (type === 'file' && (header.typeFlag === '0' || header.typeFlag === '\0') && path.endsWith('/'))
    return 'directory';
  return type;
}

function segmentsOf(
  extensions: Extensions,
  pax: PaxRecords,
  old: OldSparse | undefined,
  map: LeadingMapReader | undefined,
): readonly TarSegment[] | undefined {
  if (map !== undefined) return map.segments;
  if (old !== undefined) return old.segments;
  const list = pax.get('GNU.sparse.map');
  if (list !== undefined) return readSegmentList(list);
  return pax.has('GNU.sparse.numblocks') || extensions.segments.length > 0 ? extensions.segments : undefined;
}

function realSizeOf(pax: PaxRecords, old: OldSparse | undefined): number {
  const size = old?.realSize ?? paxNumber(pax, 'GNU.sparse.realsize') ?? paxNumber(pax, 'GNU.sparse.size');
  if (size === undefined || size < 0) throw broken('a sparse file does not state its size');
  return size;
}

function plain(
  header: RawHeader,
  pax: PaxRecords,
  type: TarEntryType,
  path: string,
  longLink: string | undefined,
  size: number,
): TarEntry & { segments: undefined } {
  const time = nonEmpty(pax.get('mtime'));
  const { sec, nsec } = time === undefined ? { sec: header.mtimeSec, nsec: 0 } : paxTime(time);
  return {
    type,
    path,
    linkPath:
      type === 'link' || type === 'symlink'
        ? checkedPath(nonEmpty(pax.get('linkpath')) ?? longLink ?? header.linkPath)
        : '',
    mode: header.mode & 0o7777,
    uid: identity(paxNumber(pax, 'uid') ?? header.uid, 'uid'),
    gid: identity(paxNumber(pax, 'gid') ?? header.gid, 'gid'),
    size,
    mtimeSec: sec,
    mtimeNsec: nsec,
    deviceMajor: paxNumber(pax, 'SCHILY.devmajor') ?? header.deviceMajor,
    deviceMinor: paxNumber(pax, 'SCHILY.devminor') ?? header.deviceMinor,
    xattrs: paxXattrs(pax),
    segments: undefined,
  };
}

/** Ids of 2^32 - 1 mean "nobody" to the kernel (chown would leave the owner as it is), so they cannot be owners. */
function identity(value: number, what: string): number {
  if (value < 0 || value >= 0xffff_ffff) throw broken(`a ${what} is out of range`);
  return value;
}
