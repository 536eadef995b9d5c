import type { Context } from './context.js';
import { abortable, throwIfDone } from './context.js';

/** At most `limit` bodies run at a time; the others wait in order. */
export class Semaphore {
  #free: number;
  readonly #waiters: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  /** @param body - may `leave` before its end, as often as it likes: from then on it does not count */
  async run<T>(ctx: Context, body: (leave: () => void) => Promise<T>): Promise<T> {
    await this.#acquire(ctx);
    let isIn = true;
    const leave = (): void => {
      if (isIn) this.#release();
      isIn = false;
    };
    try {
      return await body(leave);
    } finally {
      leave();
    }
  }

  async #acquire(ctx: Context): Promise<void> {
    throwIfDone(ctx);
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    let wake: () => void = () => undefined;
    const turn = new Promise<void>((resolve) => {
      wake = resolve;
    });
    this.#waiters.push(wake);
    try {
      await abortable(ctx, turn);
    } catch (error) {
      const index = this.#waiters.indexOf(wake);
      // The turn may have been given in the same tick in which the context ended: pass it on.
      if (index === -1) this.#release();
      else this.#waiters.splice(index, 1);
      throw error;
    }
  }

  #release(): void {
    const next = this.#waiters.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
