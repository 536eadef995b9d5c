/** Sequential output with few large writes. Positions count from the start of the image. */
import { blockBytes } from './format.js';

/** Where an image goes: writes all of `data` at `position` of the image. */
export type WriteAt = (data: Uint8Array, position: number) => void;

const bufferBytes = 1024 * 1024;
/** Zeros shorter than this are written, longer ones are left out so that the file has a hole. */
const holeBytesMin = 64 * 1024;

export class SequentialOutput {
  readonly #writeAt: WriteAt;
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  #filled = 0;
  /** Position in the image of the first byte in the buffer. */
  #start: number;

  constructor(writeAt: WriteAt, start: number) {
    this.#writeAt = writeAt;
    this.#start = start;
  }

  /** Where the next byte goes. */
  get position(): number {
    return this.#start + this.#filled;
  }

  append(data: Uint8Array): void {
    let at = 0;
    while (at < data.length) {
      const take = Math.min(bufferBytes - this.#filled, data.length - at);
      this.#buffer.set(take === data.length ? data : data.subarray(at, at + take), this.#filled);
      this.#filled += take;
      at += take;
      if (this.#filled === bufferBytes) this.flush();
    }
  }

  /** Moves on to `position` over zeros. */
  advanceTo(position: number): void {
    let gap = position - this.position;
    if (gap < 0) throw new Error('the output can only move forward');
    if (gap >= holeBytesMin) {
      this.flush();
      this.#start = position;
      return;
    }
    while (gap > 0) {
      const take = Math.min(bufferBytes - this.#filled, gap);
      this.#buffer.fill(0, this.#filled, this.#filled + take);
      this.#filled += take;
      gap -= take;
      if (this.#filled === bufferBytes) this.flush();
    }
  }

  alignToBlock(): void {
    const rest = this.position % blockBytes;
    if (rest !== 0) this.advanceTo(this.position + blockBytes - rest);
  }

  flush(): void {
    if (this.#filled === 0) return;
    this.#writeAt(this.#buffer.subarray(0, this.#filled), this.#start);
    this.#start += this.#filled;
    this.#filled = 0;
  }
}
