/**
 * Sparse files in their four spellings: the old GNU format and the PAX formats 0.0, 0.1 and 1.0
 * (GNU tar manual, "Storing Sparse Files").
 */
import { segmentsMax } from './entry.js';
import type { TarSegment } from './entry.js';
import { blockBytes, broken, numberField } from './header.js';
import type { PaxRecords } from './pax.js';

/** Adds the segments in `count` slots of 24 bytes (offset, length) at `start`; an empty slot ends them. */
export function readOldSegments(block: Buffer, start: number, count: number, into: TarSegment[]): void {
  for (let slot = 0; slot < count; slot += 1) {
    const at = start + slot * 24;
    if (block[at] === 0) return;
    addSegment(
      into,
      numberField(block, at, 12, 'sparse offset'),
      numberField(block, at + 12, 12, 'sparse length'),
    );
  }
}

export function addSegment(into: TarSegment[], offset: number, length: number): void {
  if (into.length >= segmentsMax) throw broken(`a sparse file has more than ${String(segmentsMax)} parts`);
  into.push({ offset, length });
}

/** Format 0.1: `offset,length,offset,length,…` in one record. */
export function readSegmentList(text: string): TarSegment[] {
  const segments: TarSegment[] = [];
  const numbers = text === '' ? [] : text.split(',');
  if (numbers.length % 2 !== 0) throw broken('a sparse map has an odd number of fields');
  for (let index = 0; index < numbers.length; index += 2)
    addSegment(segments, sparseNumber(numbers[index] ?? ''), sparseNumber(numbers[index + 1] ?? ''));
  return segments;
}

export function sparseNumber(text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw broken('a sparse map has a field that is not a number');
  return value;
}

/** Segments are ascending, disjoint, inside the file, and hold exactly the stored bytes. */
export function checkSegments(segments: readonly TarSegment[], size: number, storedBytes: number): void {
  let end = 0;
  let total = 0;
  for (const segment of segments) {
    if (segment.offset < end || segment.length < 0) throw broken('a sparse map is not in order');
    end = segment.offset + segment.length;
    total += segment.length;
    if (end > size) throw broken('a sparse map reaches beyond its file');
  }
  if (total !== storedBytes) throw broken('a sparse map does not fit the data that follows');
}

/** True for format 1.0, whose map stands in front of the data. */
export function hasLeadingMap(records: PaxRecords): boolean {
  return records.get('GNU.sparse.major') === '1' && records.get('GNU.sparse.minor') === '0';
}

/** Format 1.0: decimal numbers, one a line (count, then offset and length of each), padded to a block. */
export class LeadingMapReader {
  readonly segments: TarSegment[] = [];
  #text = '';
  #expected: number | undefined;
  #offset: number | undefined;
  /** Bytes of the map, padding included. */
  mapBytes = 0;

  /** Takes the next block; true when the map is complete. */
  push(block: Buffer): boolean {
    this.mapBytes += blockBytes;
    this.#text += block.toString('latin1', 0, blockBytes);
    let start = 0;
    for (;;) {
      if (this.#isComplete()) return true;
      const end = this.#text.indexOf('\n', start);
      if (end === -1) break;
      this.#take(sparseNumber(this.#text.slice(start, end)));
      start = end + 1;
    }
    this.#text = this.#text.slice(start);
    if (this.#text.length > 32) throw broken('a sparse map has a line without an end');
    return false;
  }

  #isComplete(): boolean {
    return (
      this.#expected !== undefined && this.#offset === undefined && this.segments.length === this.#expected
    );
  }

  #take(value: number): void {
    if (this.#expected === undefined) {
      if (value > segmentsMax) throw broken(`a sparse file has more than ${String(segmentsMax)} parts`);
      this.#expected = value;
    } else if (this.#offset === undefined) this.#offset = value;
    else {
      addSegment(this.segments, this.#offset, value);
      this.#offset = undefined;
    }
  }
}
