/** One line of a CRI log as bytes, and back. */
import type { Piece } from './framing.js';

export type LogStream = 'stdout' | 'stderr';

export interface LogLine {
  readonly time: string;
  readonly stream: LogStream;
  /** The first tag; later ones are for readers that know them. */
  readonly tag: 'F' | 'P';
  readonly content: Buffer;
}

/** Time, stream and tags always fit in so many bytes. */
export const headBytesMax = 128;

const newline = Buffer.from('\n');

/** Unix nanoseconds as RFC 3339 in UTC with all nine digits. */
export function formatLogTime(unixNano: string): string {
  const digits = unixNano.padStart(10, '0');
  const seconds = Number(digits.slice(0, -9));
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${digits.slice(-9)}Z`;
}

/** The bytes of the pieces' lines, in parts that are to be written one after the other. */
export function encodeLines(time: string, stream: LogStream, pieces: readonly Piece[]): Buffer[] {
  const heads = { F: Buffer.from(`${time} ${stream} F `), P: Buffer.from(`${time} ${stream} P `) };
  return pieces.flatMap((piece) => [heads[piece.tag], piece.content, newline]);
}

const linePattern = /^(\S+) (stdout|stderr) ([FP])(?::\S*)? ?/;

/** Reads a line without its newline; undefined when it is not one of a CRI log. */
export function parseLogLine(line: Buffer): LogLine | undefined {
  const head = linePattern.exec(line.subarray(0, headBytesMax).toString('latin1'));
  if (head === null) return undefined;
  const [all, time = '', stream, tag] = head;
  return {
    time,
    stream: stream === 'stderr' ? 'stderr' : 'stdout',
    tag: tag === 'P' ? 'P' : 'F',
    content: line.subarray(all.length),
  };
}

/** Counts the complete lines of each stream while a log passes by in chunks of any size. */
export class LogLineCounter {
  readonly counts = { stdout: 0, stderr: 0 };
  /** Bytes up to the end of the last complete line; what follows is torn. */
  completeBytes = 0;
  #seenBytes = 0;
  #head = Buffer.alloc(0);

  push(chunk: Buffer): void {
    let at = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, at);
      const part = chunk.subarray(at, end === -1 ? chunk.length : end);
      if (this.#head.length < headBytesMax)
        this.#head = Buffer.concat([this.#head, part.subarray(0, headBytesMax - this.#head.length)]);
      if (end === -1) break;
      const line = parseLogLine(this.#head);
      if (line !== undefined) this.counts[line.stream] += 1;
      this.#head = Buffer.alloc(0);
      at = end + 1;
      this.completeBytes = this.#seenBytes + at;
    }
    this.#seenBytes += chunk.length;
  }
}
