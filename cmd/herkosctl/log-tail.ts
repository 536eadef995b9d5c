import type { FileHandle } from 'node:fs/promises';

import { headBytesMax, parseLogLine } from '../../lib/wire/crilog/line.js';

const blockBytes = 64 * 1024;
const newline = 0x0a;

/**
 * Where the last `count` whole lines begin among the first `size` bytes. Reads backwards, a block at a time, so
 * neither the length of the file nor that of a line matters. What is not a line of a CRI log does not count.
 */
export async function tailOffset(file: FileHandle, size: number, count: number): Promise<number> {
  const buffer = Buffer.alloc(blockBytes + headBytesMax);
  let missing = count;
  // What follows the last newline is still being written.
  let isWhole = false;
  for (let end = size; end > 0; end -= blockBytes) {
    const from = Math.max(0, end - blockBytes);
    // A line that begins at the very end of the block has its head in the next one.
    const length = Math.min(size, end + headBytesMax) - from;
    const { bytesRead } = await file.read(buffer, 0, length, from);
    const data = buffer.subarray(0, bytesRead);
    for (const at of newlinesBackwards(data.subarray(0, end - from))) {
      if (isWhole && isLogLine(data, at + 1)) missing -= 1;
      isWhole = true;
      if (missing === 0) return from + at + 1;
    }
  }
  return 0;
}

function* newlinesBackwards(data: Buffer): Generator<number, void> {
  for (let end = data.length; end > 0;) {
    const at = data.subarray(0, end).lastIndexOf(newline);
    if (at === -1) return;
    yield at;
    end = at;
  }
}

function isLogLine(data: Buffer, from: number): boolean {
  return parseLogLine(data.subarray(from, from + headBytesMax)) !== undefined;
}
