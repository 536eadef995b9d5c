import { HerkosError } from '../../base/errors.js';
import { MIB } from '../../base/units.js';
import type { QmpMessage } from './message.js';
import { decodeMessage } from './message.js';

/** The longest answers (lists of devices) are tens of KiB. */
export const lineBytesMax = MIB;

const newline = 0x0a;

/** Cuts a byte stream into QMP messages; keeps at most one unfinished line. */
export class QmpLineParser {
  readonly #lineBytesMax: number;
  #parts: Buffer[] = [];
  #partsBytes = 0;

  constructor(bytesMax = lineBytesMax) {
    this.#lineBytesMax = bytesMax;
  }

  /**
   * The messages that end in `chunk`, in order.
   * @throws HerkosError `DataLoss` for a line that is no message, `ResourceExhausted` for one too long;
   *   the stream cannot be used after either.
   */
  push(chunk: Buffer): QmpMessage[] {
    const messages: QmpMessage[] = [];
    let start = 0;
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      this.#keep(chunk.subarray(start, end));
      start = end + 1;
      const line = Buffer.concat(this.#parts).toString('utf8').trim();
      this.#parts = [];
      this.#partsBytes = 0;
      if (line !== '') messages.push(decodeMessage(line));
    }
    this.#keep(chunk.subarray(start));
    return messages;
  }

  #keep(part: Buffer): void {
    if (part.length === 0) return;
    this.#partsBytes += part.length;
    if (this.#partsBytes > this.#lineBytesMax)
      throw new HerkosError(
        'ResourceExhausted',
        `QMP: a line is longer than ${String(this.#lineBytesMax)} bytes`,
      );
    this.#parts.push(part);
  }
}
