/**
 * A push parser for tar archives: bytes in, entries out, synchronous and without streams, so that it
 * runs as fast as memory. It believes nothing: every length is bounded before it is used.
 */
import type { TarEntry, TarHandler, TarSegment } from './entry.js';
import { extendedHeaderBytesMax } from './entry.js';
import { buildEntry, noExtensions, paddingOf, storedSizeOf } from './build-entry.js';
import type { Extensions, OldSparse } from './build-entry.js';
import { blockBytes, broken, isZeroBlock, numberField, readHeader } from './header.js';
import type { RawHeader } from './header.js';
import { readPaxRecords } from './pax.js';
import type { PaxRecords } from './pax.js';
import { LeadingMapReader, addSegment, checkSegments, readOldSegments, sparseNumber } from './sparse.js';

type State =
  /** A header block comes next. */
  | 'header'
  /** The body of an extended header or a long name. */
  | 'meta'
  /** More blocks of an old GNU sparse map. */
  | 'sparse-blocks'
  /** Blocks of a PAX 1.0 sparse map in front of the data. */
  | 'leading-map'
  | 'data'
  /** Bytes up to the next block boundary, or data of an entry that has none. */
  | 'skip'
  /** One zero block was seen. */
  | 'ending'
  | 'ended';

/** Global records are applied to every entry: many or large ones would make every entry slow. */
const globalRecordsMax = 64;
const globalBytesMax = 64 * 1024;

export class TarParser {
  readonly #handler: TarHandler;
  readonly #globals: PaxRecords = new Map();
  #state: State = 'header';
  /** A block that began in an earlier chunk. */
  readonly #carry = Buffer.alloc(blockBytes);
  #carried = 0;
  #next: Extensions = noExtensions();
  /** Bytes of extended headers since the last entry. */
  #extensionBytes = 0;
  #meta: { readonly typeFlag: string; readonly body: Buffer; filled: number } | undefined;
  #header: RawHeader | undefined;
  #old: OldSparse | undefined;
  #map: LeadingMapReader | undefined;
  #remaining = 0;
  #padding = 0;
  #position = 0;
  #segments: readonly TarSegment[] | undefined;
  #segmentIndex = 0;

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  /** Takes the next bytes. @throws HerkosError `DataLoss` for a broken archive, and what the handler throws. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state) {
        case 'ended':
          return;
        case 'data':
          at = this.#takeData(chunk, at);
          break;
        case 'skip': {
          const take = Math.min(this.#remaining, chunk.length - at);
          at += take;
          this.#remaining -= take;
          if (this.#remaining === 0) this.#state = 'header';
          break;
        }
        case 'meta':
          at = this.#takeMeta(chunk, at);
          break;
        default:
          at = this.#takeBlock(chunk, at);
      }
    }
  }

  /** Says that there is nothing more. @throws HerkosError `DataLoss` when an entry is not complete. */
  finish(): void {
    const complete = this.#state === 'ended' || this.#state === 'ending' || this.#state === 'header';
    const pending = this.#next.pax.size > 0 || this.#next.longPath !== undefined;
    if (!complete || this.#carried !== 0 || pending) throw broken('it ends in the middle of an entry');
  }

  #takeBlock(chunk: Buffer, at: number): number {
    if (this.#carried === 0 && chunk.length - at >= blockBytes) {
      this.#block(chunk.subarray(at, at + blockBytes));
      return at + blockBytes;
    }
    const take = Math.min(blockBytes - this.#carried, chunk.length - at);
    chunk.copy(this.#carry, this.#carried, at, at + take);
    this.#carried += take;
    if (this.#carried === blockBytes) {
      this.#carried = 0;
      this.#block(this.#carry);
    }
    return at + take;
  }

  #block(block: Buffer): void {
    switch (this.#state) {
      case 'sparse-blocks':
        readOldSegments(block, 0, 21, this.#old?.segments ?? []);
        if (block[504] === 0) this.#beginEntry();
        return;
      case 'leading-map':
        if (this.#map?.push(block) === true) this.#beginEntry();
        else if ((this.#map?.mapBytes ?? 0) >= this.#storedSize())
          throw broken('a sparse map is longer than its entry');
        return;
      default:
        this.#headerBlock(block);
    }
  }

  /** A size that has no room in the header is in an extended one, and the header's may be anything then. */
  #storedSize(): number {
    const header = this.#header;
    return header === undefined ? 0 : storedSizeOf(header, this.#globals, this.#next);
  }

  #headerBlock(block: Buffer): void {
    if (isZeroBlock(block)) {
      this.#state = this.#state === 'ending' ? 'ended' : 'ending';
      return;
    }
    if (this.#state === 'ending') throw broken('an entry follows the end mark');
    const header = readHeader(block);
    if (header.size < 0) throw broken('an entry has a negative size');
    if ('xgLK'.includes(header.typeFlag)) {
      this.#beginMeta(header);
      return;
    }
    this.#header = header;
    this.#old = undefined;
    this.#map = undefined;
    if (header.typeFlag === 'S' && header.dialect === 'gnu') {
      this.#old = { segments: [], realSize: numberField(block, 483, 12, 'real size') };
      readOldSegments(block, 386, 4, this.#old.segments);
      if (block[482] !== 0) {
        this.#state = 'sparse-blocks';
        return;
      }
    }
    this.#beginEntry();
  }

  #beginMeta(header: RawHeader): void {
    this.#extensionBytes += header.size;
    if (this.#extensionBytes > extendedHeaderBytesMax)
      throw broken(`an entry has extended headers of more than ${String(extendedHeaderBytesMax)} bytes`);
    this.#meta = { typeFlag: header.typeFlag, body: Buffer.allocUnsafe(header.size), filled: 0 };
    this.#padding = paddingOf(header.size);
    this.#state = 'meta';
    if (header.size === 0) this.#endMeta();
  }

  #takeMeta(chunk: Buffer, at: number): number {
    const meta = this.#meta;
    if (meta === undefined) throw new Error('no extended header is being read');
    const take = Math.min(meta.body.length - meta.filled, chunk.length - at);
    chunk.copy(meta.body, meta.filled, at, at + take);
    meta.filled += take;
    if (meta.filled === meta.body.length) this.#endMeta();
    return at + take;
  }

  #endMeta(): void {
    const meta = this.#meta;
    if (meta === undefined) return;
    this.#meta = undefined;
    switch (meta.typeFlag) {
      case 'g':
        readPaxRecords(meta.body, this.#globals);
        checkGlobals(this.#globals);
        break;
      case 'x':
        this.#readPax(meta.body);
        break;
      case 'L':
        this.#next.longPath = untilNul(meta.body);
        break;
      default:
        this.#next.longLink = untilNul(meta.body);
    }
    this.#skip(this.#padding);
  }

  #readPax(body: Buffer): void {
    let offset: number | undefined;
    const { segments } = this.#next;
    readPaxRecords(body, this.#next.pax, (key, value) => {
      if (key === 'GNU.sparse.offset') offset = sparseNumber(value);
      else if (key === 'GNU.sparse.numbytes') {
        if (offset === undefined) throw broken('a sparse map has a length without an offset');
        addSegment(segments, offset, sparseNumber(value));
        offset = undefined;
      }
    });
  }

  /** Called once for an entry, or twice when a PAX 1.0 sparse map stands in front of its data. */
  #beginEntry(): void {
    const header = this.#header;
    if (header === undefined) throw new Error('no header has been read');
    const built = buildEntry(header, this.#globals, this.#next, this.#old, this.#map);
    if (built === 'needs-leading-map') {
      this.#map = new LeadingMapReader();
      this.#state = 'leading-map';
      return;
    }
    this.#next = noExtensions();
    this.#extensionBytes = 0;
    this.#deliver(built.entry, built.storedBytes, built.paddingBytes);
  }

  #deliver(entry: TarEntry, storedBytes: number, paddingBytes: number): void {
    if (entry.segments !== undefined) checkSegments(entry.segments, entry.size, storedBytes);
    this.#handler.entry(entry);
    this.#segments = entry.segments;
    this.#segmentIndex = 0;
    this.#position = 0;
    this.#remaining = storedBytes;
    this.#padding = paddingBytes;
    if (storedBytes > 0) this.#state = 'data';
    else {
      this.#handler.entryEnd();
      this.#skip(paddingBytes);
    }
  }

  #takeData(chunk: Buffer, at: number): number {
    const end = at + Math.min(this.#remaining, chunk.length - at);
    this.#remaining -= end - at;
    if (this.#segments === undefined) {
      this.#handler.data(chunk.subarray(at, end), this.#position);
      this.#position += end - at;
    } else this.#takeSparse(this.#segments, chunk, at, end);
    if (this.#remaining === 0) {
      this.#handler.entryEnd();
      this.#skip(this.#padding);
    }
    return end;
  }

  /** `#position` counts within the current segment here. */
  #takeSparse(segments: readonly TarSegment[], chunk: Buffer, start: number, end: number): void {
    let at = start;
    while (at < end) {
      const segment = segments[this.#segmentIndex];
      if (segment === undefined) throw broken('a sparse file has more data than its map');
      const take = Math.min(segment.length - this.#position, end - at);
      if (take > 0) this.#handler.data(chunk.subarray(at, at + take), segment.offset + this.#position);
      at += take;
      this.#position += take;
      if (this.#position === segment.length) {
        this.#segmentIndex += 1;
        this.#position = 0;
      }
    }
  }

  #skip(bytes: number): void {
    this.#remaining = bytes;
    this.#state = bytes === 0 ? 'header' : 'skip';
  }
}

function untilNul(body: Buffer): string {
  const end = body.indexOf(0);
  return body.toString('latin1', 0, end === -1 ? body.length : end);
}

function checkGlobals(globals: PaxRecords): void {
  if (globals.size > globalRecordsMax)
    throw broken(`there are more than ${String(globalRecordsMax)} global records`);
  let bytes = 0;
  for (const value of globals.values()) bytes += value.length;
  if (bytes > globalBytesMax)
    throw broken(`its global records have more than ${String(globalBytesMax)} bytes`);
}
