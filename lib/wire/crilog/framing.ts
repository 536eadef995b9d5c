/**
 * From a byte stream to the lines of a CRI log (cri-api logging format, as containerd and CRI-O write it):
 *
 *   2026-01-02T03:04:05.678901234Z stdout F a whole line
 *   2026-01-02T03:04:05.678901234Z stderr P the first 16384 bytes of a longer one
 *
 * Framing keeps no memory across the end of a piece. So whoever knows an offset in the stream at which a
 * piece ended can start again there and gets the same pieces, however the bytes arrive: that is what makes
 * a log exact over a crash of its writer.
 */

/** Content bytes of one log line; longer lines become `P` pieces of exactly this size. */
export const lineBytesMax = 16 * 1024;

const newline = 0x0a;
const carriageReturn = 0x0d;

export interface Piece {
  /** `F`: ends a line of the stream. `P`: the line goes on, or the stream ended without a newline. */
  readonly tag: 'F' | 'P';
  readonly content: Buffer;
}

export interface Framed {
  readonly pieces: readonly Piece[];
  /** Bytes of `data` that the pieces cover; the rest (at most `lineBytesMax`) waits for more. */
  readonly consumed: number;
}

/** @param final nothing follows `data`: what is left without a newline becomes a `P` piece. */
export function frame(data: Buffer, final: boolean): Framed {
  const pieces: Piece[] = [];
  let at = 0;
  while (at < data.length) {
    // One byte more than a piece may hold: only then is it known that the line is longer.
    const window = data.subarray(at, at + lineBytesMax + 1);
    const end = window.indexOf(newline);
    if (end !== -1) {
      pieces.push({ tag: 'F', content: withoutCarriageReturn(window.subarray(0, end)) });
      at += end + 1;
    } else if (window.length > lineBytesMax) {
      pieces.push({ tag: 'P', content: window.subarray(0, lineBytesMax) });
      at += lineBytesMax;
    } else if (final) {
      pieces.push({ tag: 'P', content: window });
      at = data.length;
    } else break;
  }
  return { pieces, consumed: at };
}

function withoutCarriageReturn(line: Buffer): Buffer {
  return line.at(-1) === carriageReturn ? line.subarray(0, -1) : line;
}
