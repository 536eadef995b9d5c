/**
 * Puts framed lines into a container's log and keeps the cursor in step with it: append, cursor, and only
 * then may the guest forget. Everything that can fail can be tried again; a half-written batch is cut off first.
 */
import { dirname } from 'node:path';

import { HerkosError, isErrno, messageOf, wrap } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import { KIB } from '../../base/units.js';
import { LogLineCounter } from '../../wire/crilog/line.js';
import type { OutputCursor, StreamCursors } from './cursor.js';
import { decodeCursor, encodeCursor, streamStart } from './cursor.js';
import type { LogFiles, OpenLog } from './files.js';

export interface LogWriterOptions {
  readonly files: LogFiles;
  /** Absolute; empty: the output is discarded, but the cursor is kept. */
  readonly logPath: string;
  readonly cursorPath: string;
  readonly log: Logger;
}

const scanBytes = 256 * KIB;
/** The kernel's words for a path that no file can be made at. */
const noPlaceCodes = ['ENOENT', 'ENOTDIR', 'EEXIST', 'EROFS'];

export class LogWriter {
  readonly #options: LogWriterOptions;
  #file: OpenLog | undefined;
  /** What the bytes in the file stand for. */
  #written: StreamCursors;
  /** A failed append may have left a part of a line: cut the file back to here before anything else. */
  #repairTo: number | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: LogWriterOptions, file: OpenLog | undefined, written: StreamCursors) {
    this.#options = options;
    this.#file = file;
    this.#written = written;
  }

  get written(): StreamCursors {
    return this.#written;
  }

  /** For a container that is about to start. @throws when the log cannot be made */
  static async create(options: LogWriterOptions): Promise<LogWriter> {
    const writer = new LogWriter(options, await openFresh(options), streamStart);
    try {
      await writer.#saveCursor();
    } catch (error) {
      await writer.close();
      throw logError(error, options.logPath);
    }
    return writer;
  }

  /**
   * After a restart: finds the file that was written last, whatever it is called now, and counts what is in it.
   * Without a cursor it goes on with whatever the guest still keeps, at the end of the file that has the name.
   */
  static async recover(options: LogWriterOptions): Promise<LogWriter> {
    const text = await options.files.readCursor(options.cursorPath);
    const cursor = text === undefined ? undefined : decodeCursor(text);
    if (cursor === undefined)
      options.log.warn('the output cursor is lost; log lines may be repeated or missing', {
        path: options.logPath,
      });
    if (options.logPath === '') return new LogWriter(options, undefined, cursor?.streams ?? streamStart);
    const named = await options.files.open(options.logPath, false);
    if (cursor === undefined) return new LogWriter(options, named ?? (await openFresh(options)), streamStart);
    const last = named?.inode === cursor.inode ? named : await findLast(options, cursor);
    const written = await countOrClose(last, named, cursor);
    // A rename without a reopen leaves us on the old file; a reopen that was cut short leaves a new one there.
    const current = named ?? last ?? (await openFresh(options));
    if (last !== undefined && last !== current) await last.close();
    return new LogWriter(options, current, written);
  }

  /**
   * Appends `data`, which moves the streams to `next`. When it throws, nothing of `data` counts as written
   * unless `written` says so: try again with the rest.
   */
  async append(data: Buffer, next: StreamCursors): Promise<void> {
    await this.#inTurn(async () => {
      await this.#repair();
      if (this.#file !== undefined && data.length > 0) {
        const before = await this.#file.size();
        this.#repairTo = before;
        await this.#file.append(data);
        this.#repairTo = undefined;
      }
      this.#written = next;
    });
  }

  /** Makes what is written count: after it the guest may forget everything before the offsets. */
  async saveCursor(): Promise<void> {
    await this.#inTurn(() => this.#saveCursor());
  }

  /** Goes on in the file that is now at the log's path, making it. On failure the old file stays in use. */
  async reopen(): Promise<void> {
    if (this.#options.logPath === '') return;
    await this.#inTurn(async () => {
      const { files, logPath } = this.#options;
      const existing = await openExisting(this.#options);
      const next = existing ?? (await openFresh(this.#options));
      const old = this.#file;
      if (next === undefined || next.inode === old?.inode) {
        await next?.close();
        return;
      }
      try {
        await this.#repair();
        this.#file = next;
        await this.#saveCursor();
      } catch (error) {
        this.#file = old;
        await next.close();
        if (existing === undefined) await files.removeGone(logPath);
        throw logError(error, logPath);
      }
      await old?.close();
    });
  }

  async close(): Promise<void> {
    await this.#inTurn(async () => {
      const file = this.#file;
      this.#file = undefined;
      await file?.close();
    });
  }

  async #repair(): Promise<void> {
    if (this.#repairTo === undefined) return;
    await this.#file?.truncate(this.#repairTo);
    this.#repairTo = undefined;
  }

  async #saveCursor(): Promise<void> {
    const cursor: OutputCursor = {
      inode: this.#file?.inode ?? '',
      sizeBytes: (await this.#file?.size()) ?? 0,
      streams: this.#written,
    };
    await this.#options.files.writeCursor(this.#options.cursorPath, encodeCursor(cursor));
  }

  /** One at a time, in order: a reopen must not come between an append and what it says about itself. */
  async #inTurn<T>(body: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(body, body);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }
}

async function openExisting(options: LogWriterOptions): Promise<OpenLog | undefined> {
  try {
    return await options.files.open(options.logPath, false);
  } catch (error) {
    throw logError(error, options.logPath);
  }
}

async function openFresh(options: LogWriterOptions): Promise<OpenLog | undefined> {
  if (options.logPath === '') return undefined;
  try {
    return await options.files.open(options.logPath, true);
  } catch (error) {
    if (noPlaceCodes.some((code) => isErrno(error, code)))
      throw new HerkosError(
        'FailedPrecondition',
        `keep the container's log ${options.logPath}: ${messageOf(error)}; give the pod a log_directory where files can be made`,
        { cause: error },
      );
    throw logError(error, options.logPath);
  }
}

async function findLast(options: LogWriterOptions, cursor: OutputCursor): Promise<OpenLog | undefined> {
  if (cursor.inode === '') return undefined;
  const path = await options.files.findByInode(dirname(options.logPath), cursor.inode);
  return path === undefined ? undefined : options.files.open(path, false);
}

async function countOrClose(
  last: OpenLog | undefined,
  named: OpenLog | undefined,
  cursor: OutputCursor,
): Promise<StreamCursors> {
  try {
    return last === undefined ? cursor.streams : await countBeyond(last, cursor);
  } catch (error) {
    for (const file of new Set([last, named])) await file?.close();
    throw error;
  }
}

/** Counts the complete lines beyond the cursor and cuts a torn one off. */
async function countBeyond(file: OpenLog, cursor: OutputCursor): Promise<StreamCursors> {
  const { stdout, stderr } = cursor.streams;
  // Shorter than we left it: somebody emptied it (or it is another file with a reused inode); nothing of ours is beyond.
  if ((await file.size()) < cursor.sizeBytes) return cursor.streams;
  const counter = new LogLineCounter();
  let position = cursor.sizeBytes;
  for (;;) {
    const chunk = await file.read(position, scanBytes);
    if (chunk.length === 0) break;
    counter.push(chunk);
    position += chunk.length;
  }
  const complete = cursor.sizeBytes + counter.completeBytes;
  if (complete < position) await file.truncate(complete);
  return {
    stdout: { offset: stdout.offset, skip: stdout.skip + counter.counts.stdout },
    stderr: { offset: stderr.offset, skip: stderr.skip + counter.counts.stderr },
  };
}

function logError(error: unknown, path: string): HerkosError {
  const doing = `keep the container's log ${path}`;
  if (isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT'))
    return new HerkosError('ResourceExhausted', `${doing}: the disk is full; make room on it`, {
      cause: error,
    });
  if (error instanceof HerkosError) return error;
  return wrap(error, doing);
}
