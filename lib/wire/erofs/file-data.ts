/** The data of one regular file on its way into the image. */
import { HerkosError } from '../../base/errors.js';
import { blockBits, blockBytes, nullBlock } from './format.js';
import type { ErofsNode } from './node.js';
import type { SequentialOutput } from './output.js';

/**
 * Chunks of a file with holes: more would make finer holes but larger maps. 16,384 map entries are
 * 64 KiB, and a sparse file of 1 GiB then has chunks of 64 KiB.
 */
const chunksMax = 16 * 1024;
/** Block addresses have 32 bits. */
export const imageBytesMax = (nullBlock - 1) * blockBytes;

/** Receives data in ascending order and notes in the node where it went. */
export interface FileData {
  write(chunk: Uint8Array, position: number): void;
  end(): void;
}

/** A file without holes: one run of blocks. */
export class PlainData implements FileData {
  readonly #output: SequentialOutput;
  readonly #node: ErofsNode;
  #written = 0;

  constructor(output: SequentialOutput, node: ErofsNode) {
    this.#output = output;
    this.#node = node;
    output.alignToBlock();
    checkSpace(output.position + node.size);
    node.startBlock = node.size === 0 ? 0 : output.position / blockBytes;
  }

  write(chunk: Uint8Array, position: number): void {
    if (position !== this.#written) throw new Error('the data of a file without holes must be in order');
    this.#output.append(chunk);
    this.#written += chunk.length;
  }

  end(): void {
    if (this.#written !== this.#node.size) throw new Error('a file has other data than its size says');
  }
}

/** A file with holes: chunks that have any data take a run of blocks each. */
export class SparseData implements FileData {
  readonly #output: SequentialOutput;
  readonly #size: number;
  readonly #bits: number;
  readonly #blocks: Uint32Array;
  /** The chunk being written, -1 before the first. */
  #chunk = -1;
  #chunkStart = 0;
  #written = 0;

  constructor(output: SequentialOutput, node: ErofsNode) {
    this.#output = output;
    this.#size = node.size;
    this.#bits = chunkBitsFor(node.size);
    this.#blocks = new Uint32Array(Math.ceil(node.size / 2 ** this.#bits)).fill(nullBlock);
    node.chunks = { bits: this.#bits, blocks: this.#blocks };
    output.alignToBlock();
  }

  write(data: Uint8Array, position: number): void {
    if (position < this.#written) throw new Error('the data of a file must be in order');
    let at = 0;
    while (at < data.length) {
      const here = position + at;
      const chunk = Math.floor(here / 2 ** this.#bits);
      if (chunk !== this.#chunk) this.#open(chunk);
      const inChunk = here - chunk * 2 ** this.#bits;
      const take = Math.min(2 ** this.#bits - inChunk, data.length - at);
      this.#output.advanceTo(this.#chunkStart + inChunk);
      this.#output.append(data.subarray(at, at + take));
      at += take;
    }
    this.#written = position + data.length;
  }

  end(): void {
    this.#close();
  }

  #open(chunk: number): void {
    this.#close();
    this.#output.alignToBlock();
    checkSpace(this.#output.position + 2 ** this.#bits);
    this.#chunk = chunk;
    this.#chunkStart = this.#output.position;
    this.#blocks[chunk] = this.#chunkStart / blockBytes;
  }

  #close(): void {
    if (this.#chunk === -1) return;
    const length = Math.min(2 ** this.#bits, this.#size - this.#chunk * 2 ** this.#bits);
    this.#output.advanceTo(this.#chunkStart + length);
    this.#chunk = -1;
  }
}

/** Bytes of the map that a sparse file of this size needs. */
export function chunkMapBytes(size: number): number {
  return 4 * Math.ceil(size / 2 ** chunkBitsFor(size));
}

function chunkBitsFor(size: number): number {
  let bits = blockBits;
  while (size / 2 ** bits > chunksMax) bits += 1;
  return bits;
}

function checkSpace(end: number): void {
  if (end > imageBytesMax)
    throw new HerkosError(
      'ResourceExhausted',
      'the image would be larger than a file system of this format can be',
    );
}
