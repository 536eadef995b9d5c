import { HerkosError, classOf } from '../../lib/base/errors.js';
import { v1 } from '../../lib/cri/api.js';
import type { LogLine } from '../../lib/wire/crilog/line.js';
import { LogFile } from './log-file.js';
import { followLog } from './log-follow.js';
import type { Output } from './output.js';
import type { Session } from './session.js';
import { findContainer } from './targets.js';

export interface LogsOptions {
  readonly container?: string;
  readonly follow?: boolean;
  readonly timestamps?: boolean;
  /** Undefined: from the beginning. */
  readonly tail?: number;
}

export async function logsCommand(session: Session, target: string, options: LogsOptions): Promise<void> {
  const { id } = await findContainer(session, target, options.container);
  const { status } = await session.quick(session.rpc.containerStatus, { containerId: id });
  const path = status?.logPath ?? '';
  if (path === '')
    throw new HerkosError(
      'FailedPrecondition',
      `container ${target} writes no log: its pod has no log directory`,
    );
  const writer = new LogWriter(session.output, options.timestamps ?? false);
  if (options.follow === true && options.tail === undefined) {
    for await (const line of followLog(session.ctx, path, async () => hasEnded(session, id)))
      writer.write(line);
    return;
  }
  const tail = await lastLines(path, options.tail ?? Number.POSITIVE_INFINITY);
  for (const line of tail.lines) writer.write(line);
  if (options.follow !== true) return;
  let known = tail.total;
  for await (const line of followLog(session.ctx, path, async () => hasEnded(session, id))) {
    if (known > 0) known -= 1;
    else writer.write(line);
  }
}

/** True when the container has exited or is gone. While the daemon is away, the container may well run. */
export async function hasEnded(session: Session, containerId: string): Promise<boolean> {
  try {
    const { status } = await session.quick(session.rpc.containerStatus, { containerId });
    return status?.state === v1.ContainerState.CONTAINER_EXITED;
  } catch (error) {
    if (classOf(error) === 'NotFound') return true;
    if (classOf(error) === 'Unavailable') return false;
    throw error;
  }
}

/** Gives lines back as the container wrote them, each to its own stream. */
export class LogWriter {
  readonly #output: Output;
  readonly #timestamps: boolean;
  /** A line that comes in pieces gets one time, at its beginning. */
  readonly #midLine = { stdout: false, stderr: false };

  constructor(output: Output, timestamps: boolean) {
    this.#output = output;
    this.#timestamps = timestamps;
  }

  write({ time, stream, tag, content }: LogLine): void {
    if (this.#output.format === 'json') {
      const entry = { time, stream, partial: tag === 'P', text: content.toString('utf8') };
      this.#output.stdout.write(`${JSON.stringify(entry)}\n`);
      return;
    }
    const to = this.#output[stream];
    const head = this.#timestamps && !this.#midLine[stream] ? `${time} ` : '';
    this.#midLine[stream] = tag === 'P';
    to.write(Buffer.concat([Buffer.from(head), content, Buffer.from(tag === 'P' ? '' : '\n')]));
  }
}

/** The last `count` lines, and how many there are. */
async function lastLines(path: string, count: number): Promise<{ lines: LogLine[]; total: number }> {
  const file = new LogFile(path);
  const lines: LogLine[] = [];
  let total = 0;
  try {
    for await (const line of file.newLines()) {
      total += 1;
      // The content is a view of the file's buffer, which the next read overwrites.
      lines.push({ ...line, content: Buffer.from(line.content) });
      if (lines.length > count) lines.shift();
    }
  } finally {
    await file.close();
  }
  return { lines, total };
}
