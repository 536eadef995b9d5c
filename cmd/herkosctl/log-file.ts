import type { FileHandle } from 'node:fs/promises';
import { open, stat } from 'node:fs/promises';

import { isErrno } from '../../lib/base/errors.js';
import type { LogLine } from '../../lib/wire/crilog/line.js';
import { parseLogLine } from '../../lib/wire/crilog/line.js';
import { tailOffset } from './log-tail.js';

const chunkBytes = 64 * 1024;
/** A log line of CRI has at most 16 KiB of content; more without a newline is not a log. */
const lineBytesMax = 1024 * 1024;
const newline = 0x0a;

/** Reads a log file from where it stopped last, over rotations: the renamed file is read to its end first. */
export class LogFile {
  #file: FileHandle | undefined;
  #inode = 0n;
  /** When it was opened. */
  #size = 0;
  #offset = 0;
  #rest = Buffer.alloc(0);
  /** Inside a line that was given up: what follows up to the newline belongs to it, whatever it looks like. */
  #tooLong = false;

  constructor(readonly path: string) {}

  /** Makes the last `count` lines of the file the next ones. One that is not there yet is read from its beginning. */
  async seekTail(count: number): Promise<void> {
    const file = await this.#open();
    if (file !== undefined) this.#offset = await tailOffset(file, this.#size, count);
  }

  /** Every whole line up to the end that the file has now: one that grows faster than we read has an end too. */
  async *presentLines(): AsyncGenerator<LogLine, void> {
    const file = await this.#open();
    if (file !== undefined) yield* this.#readTo(file, this.#size);
  }

  /** Every whole line that has come since the last call. A file that is not there yet has none. */
  async *newLines(): AsyncGenerator<LogLine, void> {
    for (;;) {
      const file = await this.#open();
      if (file === undefined) return;
      yield* this.#readTo(file, Number.POSITIVE_INFINITY);
      if (!(await this.#wasReplaced())) return;
      // Somebody may have written between our last read and the rename: the old file is ours still.
      yield* this.#readTo(file, Number.POSITIVE_INFINITY);
      await this.close();
    }
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#offset = 0;
    this.#rest = Buffer.alloc(0);
    this.#tooLong = false;
    await file?.close();
  }

  /** The file that is open, or the one that the path leads to. */
  async #open(): Promise<FileHandle | undefined> {
    if (this.#file !== undefined) return this.#file;
    try {
      this.#file = await open(this.path, 'r');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
    const { ino, size } = await this.#file.stat({ bigint: true });
    this.#inode = ino;
    this.#size = Number(size);
    return this.#file;
  }

  async *#readTo(file: FileHandle, end: number): AsyncGenerator<LogLine, void> {
    const buffer = Buffer.alloc(chunkBytes);
    for (;;) {
      const length = Math.min(chunkBytes, end - this.#offset);
      const { bytesRead } = await file.read(buffer, 0, length, this.#offset);
      if (bytesRead === 0) return;
      this.#offset += bytesRead;
      yield* this.#split(Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)]));
    }
  }

  *#split(data: Buffer): Generator<LogLine, void> {
    let from = 0;
    for (let end = data.indexOf(newline); end !== -1; end = data.indexOf(newline, from)) {
      const line = this.#tooLong ? undefined : parseLogLine(data.subarray(from, end));
      this.#tooLong = false;
      if (line !== undefined) yield line;
      from = end + 1;
    }
    const rest = data.subarray(from);
    if (rest.length > lineBytesMax) this.#tooLong = true;
    this.#rest = this.#tooLong ? Buffer.alloc(0) : Buffer.from(rest);
  }

  /** True when the path leads to another file now; while it leads nowhere, the new file is still to come. */
  async #wasReplaced(): Promise<boolean> {
    try {
      const now = await stat(this.path, { bigint: true });
      return now.ino !== this.#inode;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
  }
}
