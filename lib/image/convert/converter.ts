/** The pool of worker threads behind `LayerConverter`. */
import { randomBytes } from 'node:crypto';
import { rename, unlink } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';

import { syncDirectory, temporarySuffix } from '../../base/atomic-file.js';
import type { Context } from '../../base/context.js';
import { throwIfDone } from '../../base/context.js';
import { HerkosError, isErrno } from '../../base/errors.js';
import { Semaphore } from '../../base/semaphore.js';
import { ConvertThread, newJob } from './thread.js';
import type {
  ConvertProgress,
  ConvertRequest,
  ConvertResult,
  JoinRequest,
  JoinResult,
  LayerConverter,
} from './types.js';

export interface ConverterOptions {
  /** Threads at most; as many as there are cores unless told. */
  readonly threadsMax?: number;
  /** An idle thread is ended after this time, for its memory. */
  readonly idleMs?: number;
  /** Heap of one thread; an entry of a layer takes about 240 bytes of it, so the default is enough for 2,000,000. */
  readonly heapMib?: number;
}

const idleDefaultMs = 10_000;
const heapDefaultMib = 1536;

export class WorkerLayerConverter implements LayerConverter {
  readonly #turns: Semaphore;
  readonly #idleMs: number;
  readonly #heapMib: number;
  readonly #idle: { readonly thread: ConvertThread; readonly timer: NodeJS.Timeout }[] = [];
  readonly #busy = new Set<Promise<unknown>>();
  #closed = false;

  constructor(options: ConverterOptions = {}) {
    this.#turns = new Semaphore(options.threadsMax ?? availableParallelism());
    this.#idleMs = options.idleMs ?? idleDefaultMs;
    this.#heapMib = options.heapMib ?? heapDefaultMib;
  }

  async convert(
    ctx: Context,
    request: ConvertRequest,
    onProgress?: (progress: ConvertProgress) => void,
  ): Promise<ConvertResult> {
    return this.#run(ctx, request.destinationPath, (thread, temporaryPath) =>
      thread.convert(
        ctx,
        {
          kind: 'convert',
          job: newJob(),
          compression: request.compression,
          expectedDiffId: request.expectedDiffId,
          expectedDigest: request.expectedDigest,
          expectedBytes: request.expectedBytes,
          temporaryPath,
          limits: request.limits ?? {},
          absoluteNames: request.absoluteNames ?? 'refuse',
        },
        request.source,
        onProgress,
      ),
    );
  }

  async join(ctx: Context, request: JoinRequest): Promise<JoinResult> {
    const limits = request.limits ?? {};
    return this.#run(ctx, request.destinationPath, (thread, temporaryPath) =>
      thread.join(ctx, { kind: 'join', job: newJob(), files: request.files, temporaryPath, limits }),
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#busy);
    await Promise.all(
      this.#idle.splice(0).map(async ({ thread, timer }) => {
        clearTimeout(timer);
        await thread.terminate();
      }),
    );
  }

  async #run<T>(
    ctx: Context,
    destinationPath: string,
    work: (thread: ConvertThread, temporaryPath: string) => Promise<T>,
  ): Promise<T> {
    if (this.#closed) throw new HerkosError('Unavailable', 'the layer converter is closed');
    const running = this.#turns.run(ctx, () => this.#finish(ctx, destinationPath, work));
    this.#busy.add(running);
    try {
      return await running;
    } finally {
      this.#busy.delete(running);
    }
  }

  /** Runs the work on a thread; its temporary file becomes the destination or goes. */
  async #finish<T>(
    ctx: Context,
    destinationPath: string,
    work: (thread: ConvertThread, temporaryPath: string) => Promise<T>,
  ): Promise<T> {
    const temporaryPath = `${destinationPath}.${randomBytes(6).toString('hex')}${temporarySuffix}`;
    const thread = this.#take();
    try {
      const result = await work(thread, temporaryPath);
      throwIfDone(ctx);
      await rename(temporaryPath, destinationPath);
      await syncDirectory(dirname(destinationPath));
      return result;
    } catch (error) {
      await removeIfThere(temporaryPath);
      throw error;
    } finally {
      this.#give(thread);
    }
  }

  #take(): ConvertThread {
    for (let next = this.#idle.pop(); next !== undefined; next = this.#idle.pop()) {
      clearTimeout(next.timer);
      if (next.thread.isUsable) return next.thread;
    }
    return new ConvertThread(this.#heapMib);
  }

  #give(thread: ConvertThread): void {
    if (!thread.isUsable) return;
    const timer = setTimeout(() => {
      const index = this.#idle.findIndex((idle) => idle.thread === thread);
      if (index === -1) return;
      this.#idle.splice(index, 1);
      void thread.terminate();
    }, this.#idleMs);
    timer.unref();
    this.#idle.push({ thread, timer });
  }
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}
