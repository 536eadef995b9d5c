/**
 * The 512-byte header block in its dialects: V7, POSIX ustar (IEEE Std 1003.1-2001 pax), GNU and
 * star. Sources: POSIX `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
 */
import { HerkosError } from '../../base/errors.js';

export const blockBytes = 512;

export type HeaderDialect = 'v7' | 'ustar' | 'gnu' | 'star';

export interface RawHeader {
  readonly dialect: HeaderDialect;
  /** One character. */
  readonly typeFlag: string;
  readonly path: string;
  readonly linkPath: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSec: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** An archive that is not what it claims to be. */
export function broken(message: string): HerkosError {
  return new HerkosError('DataLoss', `broken tar archive: ${message}`, { reason: 'LAYER_BROKEN_TAR' });
}

/** A NUL-terminated field as a byte string. */
export function textField(block: Buffer, start: number, length: number): string {
  let end = start;
  const limit = start + length;
  while (end < limit && block[end] !== 0) end += 1;
  return block.toString('latin1', start, end);
}

/**
 * A number: octal digits between optional spaces and NULs, or, with the top bit of the first byte set,
 * a big-endian two's complement number (base-256, GNU and star).
 */
export function numberField(block: Buffer, start: number, length: number, what: string): number {
  const first = block[start] ?? 0;
  if ((first & 0x80) !== 0) return base256(block, start, length, what);
  let at = start;
  const end = start + length;
  while (at < end && isBlank(block[at])) at += 1;
  let value = 0;
  for (; at < end && !isBlank(block[at]); at += 1) {
    const digit = (block[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) throw broken(`the ${what} field is not a number`);
    value = value * 8 + digit;
  }
  for (; at < end; at += 1) if (!isBlank(block[at])) throw broken(`the ${what} field is not a number`);
  return value;
}

function isBlank(byte: number | undefined): boolean {
  return byte === 0 || byte === 0x20;
}

function base256(block: Buffer, start: number, length: number, what: string): number {
  const negative = ((block[start] ?? 0) & 0x40) !== 0;
  let value = BigInt((block[start] ?? 0) & 0x3f);
  for (let index = 1; index < length; index += 1) value = (value << 8n) | BigInt(block[start + index] ?? 0);
  if (negative) value -= 1n << BigInt(8 * length - 2);
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER))
    throw broken(`the ${what} field is out of range`);
  return Number(value);
}

/** True for a block of zeros, which ends an archive. */
export function isZeroBlock(block: Buffer): boolean {
  for (let index = 0; index < blockBytes; index += 1) if (block[index] !== 0) return false;
  return true;
}

function checkSum(block: Buffer): void {
  const stated = numberField(block, 148, 8, 'checksum');
  let unsigned = 0;
  let highBytes = 0;
  for (let index = 0; index < blockBytes; index += 1) {
    const byte = block[index] ?? 0;
    unsigned += byte;
    highBytes += byte >> 7;
  }
  // The checksum field itself counts as eight spaces.
  for (let index = 148; index < 156; index += 1) {
    const byte = block[index] ?? 0;
    unsigned += 0x20 - byte;
    highBytes -= byte >> 7;
  }
  // Some old writers summed signed bytes: each byte of 128 or more then counts 256 less.
  if (stated !== unsigned && stated !== unsigned - 256 * highBytes)
    throw broken('a header does not have the checksum it states');
}

function dialectOf(block: Buffer): HeaderDialect {
  const magic = block.toString('latin1', 257, 265);
  if (magic === 'ustar  \0') return 'gnu';
  if (!magic.startsWith('ustar\0')) return 'v7';
  return block.toString('latin1', 508, 512) === 'tar\0' ? 'star' : 'ustar';
}

/** @throws HerkosError `DataLoss` when the block is not a header. */
export function readHeader(block: Buffer): RawHeader {
  checkSum(block);
  const dialect = dialectOf(block);
  const prefix =
    dialect === 'ustar' ? textField(block, 345, 155) : dialect === 'star' ? textField(block, 345, 131) : '';
  const name = textField(block, 0, 100);
  return {
    dialect,
    typeFlag: String.fromCharCode(block[156] ?? 0),
    path: prefix === '' ? name : `${prefix}/${name}`,
    linkPath: textField(block, 157, 100),
    mode: numberField(block, 100, 8, 'mode'),
    uid: numberField(block, 108, 8, 'uid'),
    gid: numberField(block, 116, 8, 'gid'),
    size: numberField(block, 124, 12, 'size'),
    mtimeSec: numberField(block, 136, 12, 'mtime'),
    deviceMajor: dialect === 'v7' ? 0 : numberField(block, 329, 8, 'device major'),
    deviceMinor: dialect === 'v7' ? 0 : numberField(block, 337, 8, 'device minor'),
  };
}
