/**
 * How far a container's output has got into its log. Written after each append and before the guest may
 * forget anything, so that after a kill the difference between log and cursor is at most one append:
 * lines beyond `sizeBytes` are there already, and are counted and left out when the streams are read again.
 */
import type { OutputStreamName } from '../ports.js';

export interface StreamCursor {
  /** Offset in the stream at which a piece ended. */
  readonly offset: bigint;
  /** Pieces after `offset` that an earlier file or an earlier run has written already. */
  readonly skip: number;
}

export type StreamCursors = Readonly<Record<OutputStreamName, StreamCursor>>;

export interface OutputCursor {
  /** The log's inode; empty when the output is discarded. */
  readonly inode: string;
  readonly sizeBytes: number;
  readonly streams: StreamCursors;
}

export const streamStart: StreamCursors = {
  stdout: { offset: 0n, skip: 0 },
  stderr: { offset: 0n, skip: 0 },
};

export function encodeCursor(cursor: OutputCursor): string {
  const { stdout, stderr } = cursor.streams;
  return JSON.stringify({
    version: 1,
    inode: cursor.inode,
    sizeBytes: cursor.sizeBytes,
    stdout: { offset: String(stdout.offset), skip: stdout.skip },
    stderr: { offset: String(stderr.offset), skip: stderr.skip },
  });
}

/** Undefined for what a power failure may leave of a file that was never flushed. */
export function decodeCursor(text: string): OutputCursor | undefined {
  try {
    const raw = JSON.parse(text) as Record<string, unknown>;
    const stdout = decodeStream(raw['stdout']);
    const stderr = decodeStream(raw['stderr']);
    const { version, inode, sizeBytes } = raw;
    if (version !== 1 || typeof inode !== 'string' || !isCount(sizeBytes)) return undefined;
    return stdout === undefined || stderr === undefined
      ? undefined
      : { inode, sizeBytes, streams: { stdout, stderr } };
  } catch {
    return undefined;
  }
}

function decodeStream(value: unknown): StreamCursor | undefined {
  if (typeof value !== 'object' || value === null || !('offset' in value) || !('skip' in value))
    return undefined;
  const { offset, skip } = value;
  if (typeof offset !== 'string' || !/^\d{1,20}$/.test(offset) || !isCount(skip)) return undefined;
  return { offset: BigInt(offset), skip };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
