/** Extended headers: POSIX `pax`, "pax Extended Header"; xattrs as star, GNU tar and Go write them. */
import type { TarXattr } from './entry.js';
import { broken } from './header.js';

/** Values by key; undefined takes a global value away. Keys and values are byte strings. */
export type PaxRecords = Map<string, string>;

const newline = 0x0a;
const equals = 0x3d;
const space = 0x20;
/** Digits of a record's length: enough for the largest header that is taken. */
const lengthDigitsMax = 8;

/** Keys that say something here; all others are dropped, so that a header cannot fill memory with them. */
const meaningful = /^(?:path|linkpath|size|uid|gid|mtime|SCHILY\.(?:xattr\.|devm)|GNU\.sparse\.)/;

/** Adds the records of one header body, `<length> <key>=<value>\n` each, to `into`; later ones win. */
export function readPaxRecords(body: Buffer, into: PaxRecords, onRecord?: PaxRecordSink): void {
  let at = 0;
  while (at < body.length) {
    const length = recordLength(body, at);
    const end = at + length;
    const keyStart = body.indexOf(space, at) + 1;
    const split = body.indexOf(equals, keyStart);
    if (end > body.length || body[end - 1] !== newline || split === -1 || split >= end)
      throw broken('an extended header has a malformed record');
    const key = body.toString('latin1', keyStart, split);
    if (key === '') throw broken('an extended header has a record without a key');
    if (meaningful.test(key)) {
      const value = body.toString('latin1', split + 1, end - 1);
      into.set(key, value);
      onRecord?.(key, value);
    }
    at = end;
  }
}

/** Sees every record in order, repeated keys included. */
export type PaxRecordSink = (key: string, value: string) => void;

function recordLength(body: Buffer, at: number): number {
  let length = 0;
  for (let index = at; index < at + lengthDigitsMax; index += 1) {
    const byte = body[index] ?? 0;
    if (byte === space && index > at) {
      // At least the digits, the space, a key of one character, '=' and the newline.
      if (length < index - at + 4) break;
      return length;
    }
    if (byte < 0x30 || byte > 0x39) break;
    length = length * 10 + byte - 0x30;
  }
  throw broken('an extended header has a record without a length');
}

/** A decimal number that is exact, or an error that names the key. */
export function paxNumber(records: PaxRecords, key: string): number | undefined {
  const text = records.get(key);
  if (text === undefined || text === '') return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw broken(`extended header ${key} is not a number`);
  return value;
}

/** `[-]seconds[.fraction]` as whole seconds and nanoseconds, rounded down. */
export function paxTime(text: string): { readonly sec: number; readonly nsec: number } {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text);
  if (match === null) throw broken('an extended header has a time that is not a number');
  const sec = Number(match[2]);
  const nsec = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (match[1] !== '-') return { sec, nsec };
  return nsec === 0 ? { sec: -sec, nsec: 0 } : { sec: -sec - 1, nsec: 1_000_000_000 - nsec };
}

const xattrPrefix = 'SCHILY.xattr.';

/** The extended attributes among the records. */
export function paxXattrs(records: PaxRecords): TarXattr[] {
  const found: TarXattr[] = [];
  for (const [key, value] of records) {
    if (key.startsWith(xattrPrefix))
      found.push({ name: key.slice(xattrPrefix.length), value: Buffer.from(value, 'latin1') });
  }
  return found;
}
