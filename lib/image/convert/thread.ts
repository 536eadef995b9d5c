/** One worker thread of the pool: runs one job at a time, with back-pressure and cancel. */
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';

import { throwIfDone } from '../../base/context.js';
import type { Context } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import { receivedError } from './messages.js';
import type { ConvertJob, FromWorker, JoinJob, ToWorker } from './messages.js';
import type { ConvertProgress, ConvertResult, JoinResult } from './types.js';

/** Bytes of the source that may wait in front of the worker. */
const queueBytesMax = 8 * 1024 * 1024;
/** Source chunks are gathered into messages of this size: a message costs more than a copy. */
const messageBytes = 512 * 1024;
/** A thread that does not answer an abort in this time is ended. */
const abortTimeoutMs = 2000;
/**
 * MiB of each half of a thread's young heap. V8's 16 let garbage grow to a multiple of what a conversion needs; the
 * daemon's own 1 (cmd/herkosd/node-flags.ts) has it collect four times as long. V8 prefers the flag of the process to a
 * thread's resource limits, and reads it when a thread begins: set here, it leaves the daemon's heap as it is.
 */
const youngHeapFlag = '--max-semi-space-size=2';

interface Running {
  readonly job: number;
  readonly onProgress: ((progress: ConvertProgress) => void) | undefined;
  readonly resolve: (result: ConvertResult | JoinResult) => void;
  readonly reject: (error: HerkosError) => void;
  /** Bytes sent and not yet taken. */
  queuedBytes: number;
  wakeSender: (() => void) | undefined;
}

let lastJob = 0;

/** A number for a new job, unique in this process. */
export function newJob(): number {
  lastJob += 1;
  return lastJob;
}

export class ConvertThread {
  readonly #worker: Worker;
  #running: Running | undefined;
  #ended = false;
  /** Set when the source failed: what the job's failure is called then. */
  #sourceError: unknown;
  /** Buffers that came back from the worker: garbage of this size would pile up faster than it is collected. */
  #spare: ArrayBuffer[] = [];

  /** `heapMib` bounds the thread's heap: a job that needs more fails alone. */
  constructor(heapMib: number) {
    setFlagsFromString(youngHeapFlag);
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: heapMib },
    });
    this.#worker.on('message', (message: FromWorker) => {
      this.#onMessage(message);
    });
    this.#worker.on('error', (error) => {
      const full = 'code' in error && error.code === 'ERR_WORKER_OUT_OF_MEMORY';
      this.#onEnd(
        full
          ? new HerkosError(
              'ResourceExhausted',
              'the layer has more metadata than a conversion may hold in memory',
              {
                reason: 'LAYER_TOO_LARGE',
              },
            )
          : new HerkosError('Internal', `a conversion thread failed: ${messageOf(error)}`, { cause: error }),
      );
    });
    this.#worker.on('exit', () => {
      this.#onEnd(new HerkosError('Internal', 'a conversion thread ended'));
    });
    // An idle thread must not keep the process alive; a running job does (see #start).
    this.#worker.unref();
  }

  /** False once the thread is gone; it takes no more jobs then. */
  get isUsable(): boolean {
    return !this.#ended;
  }

  async convert(
    ctx: Context,
    job: ConvertJob,
    source: AsyncIterable<Uint8Array>,
    onProgress?: (progress: ConvertProgress) => void,
  ): Promise<ConvertResult> {
    const iterator = source[Symbol.asyncIterator]();
    try {
      const result = this.#start(ctx, job, onProgress);
      const fed = this.#feed(job.job, iterator);
      // Whichever fails first decides; a broken source must stop the worker.
      fed.catch((error: unknown) => {
        this.#fail(job.job, error);
      });
      return (await result) as ConvertResult;
    } finally {
      iterator.return?.().catch(() => undefined);
    }
  }

  async join(ctx: Context, job: JoinJob): Promise<JoinResult> {
    return (await this.#start(ctx, job, undefined)) as JoinResult;
  }

  async terminate(): Promise<void> {
    this.#ended = true;
    await this.#worker.terminate();
  }

  /** Settles when the worker has answered and touches the temporary file no more. */
  async #start(
    ctx: Context,
    job: ConvertJob | JoinJob,
    onProgress: ((progress: ConvertProgress) => void) | undefined,
  ): Promise<ConvertResult | JoinResult> {
    throwIfDone(ctx);
    const done = new Promise<ConvertResult | JoinResult>((resolve, reject) => {
      this.#running = { job: job.job, onProgress, resolve, reject, queuedBytes: 0, wakeSender: undefined };
    });
    const onAbort = (): void => {
      this.#abort(job.job);
    };
    ctx.signal.addEventListener('abort', onAbort, { once: true });
    this.#worker.ref();
    this.#post(job);
    try {
      const result = await done;
      throwIfDone(ctx);
      return result;
    } catch (error) {
      throwIfDone(ctx);
      throw this.#sourceError ?? error;
    } finally {
      this.#sourceError = undefined;
      ctx.signal.removeEventListener('abort', onAbort);
      this.#worker.unref();
    }
  }

  /** Moves the source into the worker, never more than the queue holds. */
  async #feed(job: number, iterator: AsyncIterator<Uint8Array>): Promise<void> {
    let gathered = this.#buffer();
    let filled = 0;
    const flush = async (): Promise<void> => {
      await this.#room(job);
      if (this.#running?.job !== job || filled === 0) return;
      this.#running.queuedBytes += messageBytes;
      const data = gathered.buffer;
      this.#worker.postMessage({ kind: 'chunk', job, data, bytes: filled } satisfies ToWorker, [data]);
      gathered = this.#buffer();
      filled = 0;
    };
    for (;;) {
      const next = await iterator.next();
      if (this.#running?.job !== job) return;
      if (next.done === true) break;
      for (let at = 0; at < next.value.length;) {
        const take = Math.min(messageBytes - filled, next.value.length - at);
        gathered.set(next.value.subarray(at, at + take), filled);
        filled += take;
        at += take;
        if (filled === messageBytes) {
          await flush();
          if (this.#isOver(job)) return;
        }
      }
    }
    await flush();
    if (!this.#isOver(job)) this.#post({ kind: 'end', job });
  }

  #isOver(job: number): boolean {
    return this.#running?.job !== job;
  }

  #buffer(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#spare.pop() ?? new ArrayBuffer(messageBytes));
  }

  async #room(job: number): Promise<void> {
    for (;;) {
      const running = this.#running;
      if (running?.job !== job || running.queuedBytes < queueBytesMax) return;
      await new Promise<void>((resolve) => {
        running.wakeSender = resolve;
      });
    }
  }

  #onMessage(message: FromWorker): void {
    const running = this.#running;
    if (running?.job !== message.job) return;
    switch (message.kind) {
      case 'taken':
        running.queuedBytes -= message.data.byteLength;
        this.#spare.push(message.data);
        wake(running);
        return;
      case 'progress':
        running.onProgress?.(message);
        return;
      case 'failed':
        this.#finish();
        running.reject(receivedError(message.error));
        return;
      default:
        this.#finish();
        running.resolve(message.result);
    }
  }

  /**
   * The source broke: the worker stops, and the job fails with the source's error. A source may also break when
   * its job is over, for example because it was cancelled then: the thread may have another job by that time.
   */
  #fail(job: number, error: unknown): void {
    if (this.#isOver(job)) return;
    this.#sourceError = error;
    this.#abort(job);
  }

  #abort(job: number): void {
    if (this.#running?.job !== job) return;
    this.#post({ kind: 'abort', job });
    const timer = setTimeout(() => {
      if (this.#running?.job === job) void this.terminate();
    }, abortTimeoutMs);
    timer.unref();
  }

  #onEnd(error: HerkosError): void {
    this.#ended = true;
    const running = this.#running;
    this.#finish();
    running?.reject(error);
  }

  #finish(): void {
    const running = this.#running;
    this.#running = undefined;
    this.#spare = [];
    if (running !== undefined) wake(running);
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }
}

function wake(running: Running): void {
  running.wakeSender?.();
  running.wakeSender = undefined;
}
