import type { FileHandle } from 'node:fs/promises';
import { open, stat } from 'node:fs/promises';

import { isErrno } from '../../lib/base/errors.js';
import type { LogLine } from '../../lib/wire/crilog/line.js';
import { parseLogLine } from '../../lib/wire/crilog/line.js';

const chunkBytes = 64 * 1024;
/** A log line of CRI has at most 16 KiB of content; more without a newline is not a log. */
const lineBytesMax = 1024 * 1024;
const newline = 0x0a;

/** Reads a log file from where it stopped last, over rotations: the renamed file is read to its end first. */
export class LogFile {
  readonly #path: string;
  #file: FileHandle | undefined;
  #inode = 0n;
  #offset = 0;
  #rest = Buffer.alloc(0);

  constructor(path: string) {
    this.#path = path;
  }

  /** Every whole line that has come since the last call. A file that is not there yet has none. */
  async *newLines(): AsyncGenerator<LogLine, void> {
    for (;;) {
      if (this.#file === undefined && !(await this.#open())) return;
      yield* this.#readToEnd();
      if (!(await this.#wasReplaced())) return;
      // Somebody may have written between our last read and the rename: the old file is ours still.
      yield* this.#readToEnd();
      await this.close();
    }
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#offset = 0;
    this.#rest = Buffer.alloc(0);
    await file?.close();
  }

  async #open(): Promise<boolean> {
    try {
      this.#file = await open(this.#path, 'r');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
    this.#inode = (await this.#file.stat({ bigint: true })).ino;
    return true;
  }

  async *#readToEnd(): AsyncGenerator<LogLine, void> {
    const buffer = Buffer.alloc(chunkBytes);
    for (;;) {
      const { bytesRead } = (await this.#file?.read(buffer, 0, chunkBytes, this.#offset)) ?? { bytesRead: 0 };
      if (bytesRead === 0) return;
      this.#offset += bytesRead;
      yield* this.#split(Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)]));
    }
  }

  *#split(data: Buffer): Generator<LogLine, void> {
    let from = 0;
    for (let end = data.indexOf(newline); end !== -1; end = data.indexOf(newline, from)) {
      const line = parseLogLine(data.subarray(from, end));
      if (line !== undefined) yield line;
      from = end + 1;
    }
    const rest = data.subarray(from);
    this.#rest = rest.length > lineBytesMax ? Buffer.alloc(0) : Buffer.from(rest);
  }

  /** True when the path leads to another file now; while it leads nowhere, the new file is still to come. */
  async #wasReplaced(): Promise<boolean> {
    try {
      const now = await stat(this.#path, { bigint: true });
      return now.ino !== this.#inode;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false;
      throw error;
    }
  }
}
