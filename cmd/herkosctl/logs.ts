import { throwIfDone } from '../../lib/base/context.js';
import { HerkosError, classOf } from '../../lib/base/errors.js';
import { v1 } from '../../lib/cri/api.js';
import type { LogLine } from '../../lib/wire/crilog/line.js';
import { LogFile } from './log-file.js';
import { followLog } from './log-follow.js';
import { written } from './output.js';
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
  const writer = new LogWriter(session, options.timestamps ?? false);
  const file = new LogFile(path);
  try {
    if (options.tail !== undefined) await file.seekTail(options.tail);
    const lines =
      options.follow === true
        ? followLog(session.ctx, file, async () => hasEnded(session, id))
        : file.presentLines();
    for await (const line of lines) await writer.write(line);
  } finally {
    await file.close();
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
  readonly #session: Pick<Session, 'ctx' | 'output'>;
  readonly #timestamps: boolean;
  /** A line that comes in pieces gets one time, at its beginning. */
  readonly #midLine = { stdout: false, stderr: false };

  constructor(session: Pick<Session, 'ctx' | 'output'>, timestamps: boolean) {
    this.#session = session;
    this.#timestamps = timestamps;
  }

  /** Done when there is room for the next line. */
  async write({ time, stream, tag, content }: LogLine): Promise<void> {
    const { ctx, output } = this.#session;
    throwIfDone(ctx);
    if (output.format === 'json') {
      const entry = { time, stream, partial: tag === 'P', text: content.toString('utf8') };
      await written(ctx, output.stdout, `${JSON.stringify(entry)}\n`);
      return;
    }
    const head = this.#timestamps && !this.#midLine[stream] ? `${time} ` : '';
    this.#midLine[stream] = tag === 'P';
    const bytes = Buffer.concat([Buffer.from(head), content, Buffer.from(tag === 'P' ? '' : '\n')]);
    await written(ctx, output[stream], bytes);
  }
}
