/**
 * As much of ELF as the guest image needs: 64-bit, little-endian files of x86-64.
 * Layout after the System V ABI, "Object Files", and its AMD64 supplement.
 */
import { HerkosError } from '../lib/base/errors.js';

export const sectionType = { null: 0, symbols: 2, dynamic: 6, noBits: 8 } as const;
export const segmentType = { load: 1, dynamic: 2, interpreter: 3, note: 4 } as const;

const headerBytes = 64;
export const sectionHeaderBytes = 64;
export const segmentHeaderBytes = 56;
const machineX8664 = 62;
/** Far above what a kernel has; a count beyond it is a broken file. */
const entriesMax = 10_000;

export interface Section {
  readonly name: string;
  readonly type: number;
  readonly flags: bigint;
  readonly offset: number;
  readonly size: number;
  readonly align: number;
}

export interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: bigint;
  readonly fileSize: number;
  /** Where its header is in the file. */
  readonly headerOffset: number;
}

export interface Note {
  readonly owner: string;
  readonly type: number;
  readonly data: Buffer;
}

/** @throws InvalidArgument when `file` is no ELF file for x86-64 */
export function checkElf(file: Buffer, what: string): void {
  const magic = file.length >= headerBytes && file.readUInt32BE(0) === 0x7f454c46;
  if (!magic || file[4] !== 2 || file[5] !== 1 || file.readUInt16LE(18) !== machineX8664)
    throw new HerkosError('InvalidArgument', `${what} is no ELF file for x86-64`);
}

/** The sections, in the order of their numbers; the first is the empty one. */
export function sections(file: Buffer, what: string): Section[] {
  checkElf(file, what);
  const at = offset(file, 40, what);
  const count = file.readUInt16LE(60);
  const headers = Array.from({ length: count }, (_, index) =>
    part(file, at + index * sectionHeaderBytes, sectionHeaderBytes, what),
  );
  const names = headers[file.readUInt16LE(62)];
  const nameTable =
    names === undefined
      ? Buffer.alloc(0)
      : part(file, offset(names, 24, what), offset(names, 32, what), what);
  return headers.map((header) => ({
    name: text(nameTable, header.readUInt32LE(0)),
    type: header.readUInt32LE(4),
    flags: header.readBigUInt64LE(8),
    offset: offset(header, 24, what),
    size: offset(header, 32, what),
    align: Math.max(1, offset(header, 48, what)),
  }));
}

export function segments(file: Buffer, what: string): Segment[] {
  checkElf(file, what);
  const at = offset(file, 32, what);
  const count = file.readUInt16LE(56);
  if (count > entriesMax) throw new HerkosError('InvalidArgument', `${what} has ${String(count)} segments`);
  return Array.from({ length: count }, (_, index) => {
    const headerOffset = at + index * segmentHeaderBytes;
    const header = part(file, headerOffset, segmentHeaderBytes, what);
    return {
      type: header.readUInt32LE(0),
      offset: offset(header, 8, what),
      address: header.readBigUInt64LE(16),
      fileSize: offset(header, 32, what),
      headerOffset,
    };
  });
}

/** What the note segments hold. */
export function notes(file: Buffer, what: string): Note[] {
  const found: Note[] = [];
  for (const segment of segments(file, what)) {
    if (segment.type !== segmentType.note) continue;
    const bytes = part(file, segment.offset, segment.fileSize, what);
    for (let at = 0; at + 12 <= bytes.length;) {
      const nameBytes = bytes.readUInt32LE(at);
      const dataBytes = bytes.readUInt32LE(at + 4);
      const dataAt = at + 12 + roundUp4(nameBytes);
      found.push({
        owner: text(part(bytes, at + 12, nameBytes, what), 0),
        type: bytes.readUInt32LE(at + 8),
        data: part(bytes, dataAt, dataBytes, what),
      });
      at = dataAt + roundUp4(dataBytes);
    }
  }
  return found;
}

/** What a program or library needs to be loaded: its interpreter, if any, and the names of its libraries. */
export function loadNeeds(file: Buffer, what: string): { interpreter?: string; libraries: string[] } {
  const all = segments(file, what);
  const interpreter = all.find(({ type }) => type === segmentType.interpreter);
  const dynamic = all.find(({ type }) => type === segmentType.dynamic);
  const libraries = dynamic === undefined ? [] : neededLibraries(file, all, dynamic, what);
  if (interpreter === undefined) return { libraries };
  return { interpreter: text(part(file, interpreter.offset, interpreter.fileSize, what), 0), libraries };
}

const dynamicNeeded = 1n;
const dynamicStringTable = 5n;

function neededLibraries(file: Buffer, all: Segment[], dynamic: Segment, what: string): string[] {
  const entries = part(file, dynamic.offset, dynamic.fileSize, what);
  const needed: number[] = [];
  let stringTable: bigint | undefined;
  for (let at = 0; at + 16 <= entries.length; at += 16) {
    const tag = entries.readBigUInt64LE(at);
    const value = entries.readBigUInt64LE(at + 8);
    if (tag === dynamicNeeded) needed.push(Number(value));
    if (tag === dynamicStringTable) stringTable = value;
  }
  if (needed.length === 0) return [];
  const home = all.find(
    ({ type, address, fileSize }) =>
      type === segmentType.load &&
      stringTable !== undefined &&
      stringTable >= address &&
      stringTable < address + BigInt(fileSize),
  );
  if (home === undefined || stringTable === undefined)
    throw new HerkosError('InvalidArgument', `${what} has no dynamic string table`);
  const start = home.offset + Number(stringTable - home.address);
  return needed.map((name) => text(file, start + name));
}

/** A zero-terminated string. */
function text(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString('latin1', at, end === -1 ? bytes.length : end);
}

function offset(bytes: Buffer, at: number, what: string): number {
  const value = bytes.readBigUInt64LE(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new HerkosError('InvalidArgument', `${what} has an offset of ${String(value)}`);
  return Number(value);
}

function part(bytes: Buffer, at: number, size: number, what: string): Buffer {
  if (at + size > bytes.length)
    throw new HerkosError('InvalidArgument', `${what} ends before byte ${String(at + size)}`);
  return bytes.subarray(at, at + size);
}

function roundUp4(value: number): number {
  return Math.ceil(value / 4) * 4;
}
