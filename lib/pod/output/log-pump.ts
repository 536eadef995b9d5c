/**
 * Carries a container's output from the guest into its log, and lets the guest forget only what is there.
 * When the log cannot be written, nothing is acknowledged: the guest's buffer fills and the container waits,
 * so a full disk costs time, never lines. Memory is bounded by a batch and one piece for each stream.
 */
import type { CancellableContext, Context } from '../../base/context.js';
import { background, sleep, withCancel } from '../../base/context.js';
import { messageOf } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import { KIB } from '../../base/units.js';
import { nowUnixNano } from '../../model/time.js';
import { frame } from '../../wire/crilog/framing.js';
import { encodeLines, formatLogTime } from '../../wire/crilog/line.js';
import type { Guest, GuestOutput, OutputStreamName } from '../ports.js';
import type { StreamCursor, StreamCursors } from './cursor.js';
import type { LogWriter } from './log-writer.js';

export interface LogPumpOptions {
  readonly containerId: string;
  readonly writer: LogWriter;
  /** A terminal has one stream: everything is stdout. */
  readonly tty: boolean;
  readonly log: Logger;
}

/** More waiting lines than this stop the reading until they are written. */
const batchBytesMax = 512 * KIB;
const retryFirstMs = 50;
const retryMaxMs = 5_000;
const nothing = Buffer.alloc(0);

interface StreamState {
  /** After the last piece that was framed; the writer may be behind. */
  cursor: StreamCursor;
  ended: boolean;
  output: GuestOutput | undefined;
  /** It was said that a part is missing; a guest could make it so for ever. */
  isGapTold: boolean;
}

export class LogPump {
  /** Settles when both streams have ended and all of them is in the log. Never rejects. */
  readonly drained: Promise<void>;
  readonly #options: LogPumpOptions;
  readonly #streams = new Map<OutputStreamName, StreamState>();
  readonly #life: CancellableContext = withCancel(background());
  #reading: CancellableContext | undefined;
  #readers: Promise<unknown> = Promise.resolve();
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;
  #roomWaiters: (() => void)[] = [];
  #resolveDrained: () => void = () => undefined;

  constructor(options: LogPumpOptions) {
    this.#options = options;
    this.drained = new Promise((resolve) => {
      this.#resolveDrained = resolve;
    });
    const names: OutputStreamName[] = options.tty ? ['stdout'] : ['stdout', 'stderr'];
    for (const name of names)
      this.#streams.set(name, {
        cursor: options.writer.written[name],
        ended: false,
        output: undefined,
        isGapTold: false,
      });
  }

  /** Both streams have ended, and all of them is in the log. */
  get isComplete(): boolean {
    return [...this.#streams.values()].every((state) => state.ended) && !this.#isBehind();
  }

  /** Reads from this connection from now on, beginning where the framing has got to. */
  attach(guest: Pick<Guest, 'readOutput'>): void {
    if (this.#life.signal.aborted) return;
    this.#reading?.cancel();
    const ctx = withCancel(this.#life);
    this.#reading = ctx;
    const before = this.#readers;
    this.#readers = before.then(async () => {
      const open = [...this.#streams].filter(([, state]) => !state.ended);
      await Promise.all(open.map(([name, state]) => this.#read(ctx, guest, name, state)));
    });
  }

  /** Goes on in a new file at the log's path. @throws when it cannot be made; the old one stays in use then */
  async reopen(): Promise<void> {
    await this.#options.writer.reopen();
  }

  /** Stops reading, gives what is framed one chance to be written, and lets go of the file. Idempotent. */
  async close(): Promise<void> {
    this.#life.cancel();
    this.#wakeRoomWaiters();
    await this.#readers;
    await this.#writing;
    await this.#options.writer.close();
    this.#resolveDrained();
  }

  /** Reads a stream to its end, again and again if need be: a lost connection cancels `ctx` when the next is attached. */
  async #read(
    ctx: Context,
    guest: Pick<Guest, 'readOutput'>,
    name: OutputStreamName,
    state: StreamState,
  ): Promise<void> {
    let delayMs = retryFirstMs;
    while (!ctx.signal.aborted) {
      const before = state.cursor.offset;
      try {
        await this.#readOnce(ctx, guest, name, state);
        if (state.ended) return;
      } catch (error) {
        this.#options.log.debug('reading output failed', { stream: name, error: messageOf(error) });
      }
      delayMs = state.cursor.offset === before ? Math.min(delayMs * 2, retryMaxMs) : retryFirstMs;
      await sleep(ctx, delayMs).catch(() => undefined);
    }
  }

  async #readOnce(
    ctx: Context,
    guest: Pick<Guest, 'readOutput'>,
    name: OutputStreamName,
    state: StreamState,
  ): Promise<void> {
    let position = state.cursor.offset;
    let rest: Buffer = nothing;
    const output = guest.readOutput(ctx, this.#options.containerId, name, position);
    state.output = output;
    this.#acknowledge(this.#options.writer.written);
    for await (const chunk of output) {
      if (ctx.signal.aborted) return;
      if (chunk.offset > position) {
        this.#take(name, state, rest, true, position);
        this.#leap(name, state, position, chunk.offset);
        rest = nothing;
        position = chunk.offset;
      }
      const fresh = chunk.data.subarray(overlap(position, chunk));
      position += BigInt(fresh.length);
      rest = this.#take(
        name,
        state,
        rest.length === 0 ? fresh : Buffer.concat([rest, fresh]),
        chunk.end,
        position,
      );
      state.ended = chunk.end;
      this.#kick();
      if (this.#waitingBytes > batchBytesMax) await this.#room();
      if (chunk.end) return;
    }
  }

  /** The guest has forgotten a part because the cursor was lost, or it is broken: the log goes on behind it. */
  #leap(name: OutputStreamName, state: StreamState, from: bigint, to: bigint): void {
    // Pieces that are in the log already were counted from elsewhere: better twice than not at all.
    state.cursor = { offset: to, skip: 0 };
    if (state.isGapTold) return;
    state.isGapTold = true;
    this.#warn('the guest does not keep a part of the output any more; log lines may be missing', {
      stream: name,
      bytes: String(to - from),
    });
  }

  /** Frames `data`, which ends at `position` in the stream, and queues its lines; returns what is not a piece yet. */
  #take(name: OutputStreamName, state: StreamState, data: Buffer, final: boolean, position: bigint): Buffer {
    const { pieces, consumed } = frame(data, final);
    const skipped = Math.min(state.cursor.skip, pieces.length);
    const lines = encodeLines(formatLogTime(nowUnixNano()), name, pieces.slice(skipped));
    for (const line of lines) {
      this.#waitingBytes += line.length;
      this.#waiting.push(line);
    }
    // A copy, so that a few bytes do not keep a whole chunk in memory.
    const rest = Buffer.from(data.subarray(consumed));
    state.cursor = { offset: position - BigInt(rest.length), skip: state.cursor.skip - skipped };
    return rest;
  }

  #kick(): void {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
      this.#wakeRoomWaiters();
      if (this.#isBehind() && !this.#life.signal.aborted) this.#kick();
      else if (this.isComplete) this.#resolveDrained();
    });
  }

  /** Writes batches until nothing waits. */
  async #write(): Promise<void> {
    while (this.#isBehind()) {
      const batch = Buffer.concat(this.#waiting);
      const next = this.#snapshot();
      this.#waiting = [];
      this.#waitingBytes = 0;
      if (!(await this.#persist(batch, next))) return;
      this.#acknowledge(next);
      this.#wakeRoomWaiters();
    }
  }

  #acknowledge(next: StreamCursors): void {
    for (const [name, { output }] of this.#streams)
      try {
        output?.acknowledge(next[name].offset);
      } catch (error) {
        // The guest keeps a little more for a little longer; nothing is lost by that.
        this.#options.log.debug('an acknowledgement failed', { stream: name, error: messageOf(error) });
      }
  }

  /** Tries until it is in the log and in the cursor; false when the pump was closed first. */
  async #persist(batch: Buffer, next: StreamCursors): Promise<boolean> {
    const { writer } = this.#options;
    for (let delayMs = retryFirstMs; ; delayMs = Math.min(delayMs * 2, retryMaxMs)) {
      try {
        if (writer.written !== next) await writer.append(batch, next);
        await writer.saveCursor();
        return true;
      } catch (error) {
        if (delayMs === retryFirstMs)
          this.#warn('the log cannot be written; the container waits until it can', {
            error: messageOf(error),
          });
        try {
          await sleep(this.#life, delayMs);
        } catch {
          return false;
        }
      }
    }
  }

  #isBehind(): boolean {
    const { written } = this.#options.writer;
    return [...this.#streams].some(([name, { cursor }]) => cursor.offset !== written[name].offset);
  }

  #snapshot(): StreamCursors {
    const { written } = this.#options.writer;
    return {
      stdout: this.#streams.get('stdout')?.cursor ?? written.stdout,
      stderr: this.#streams.get('stderr')?.cursor ?? written.stderr,
    };
  }

  async #room(): Promise<void> {
    await new Promise<void>((resolve) => {
      if (this.#life.signal.aborted) resolve();
      else this.#roomWaiters.push(resolve);
    });
  }

  #wakeRoomWaiters(): void {
    for (const wake of this.#roomWaiters.splice(0)) wake();
  }

  #warn(message: string, fields: Readonly<Record<string, string>>): void {
    this.#options.log.warn(message, { container: this.#options.containerId, ...fields });
  }
}

/** Bytes of the chunk that were read before. */
function overlap(position: bigint, chunk: { readonly offset: bigint; readonly data: Buffer }): number {
  const known = position - chunk.offset;
  return known > BigInt(chunk.data.length) ? chunk.data.length : Number(known);
}
