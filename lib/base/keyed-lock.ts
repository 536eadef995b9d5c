import type { Context } from './context.js';
import { abortable } from './context.js';

/** A mutex per key, first come first served; a waiter leaves when its context ends. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  async run<T>(ctx: Context, key: string, body: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    let release: () => void = () => undefined;
    const mine = new Promise<void>((resolve) => {
      release = resolve;
    });
    const tail = before.then(() => mine);
    this.#tails.set(key, tail);
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    try {
      await abortable(ctx, before);
      return await body();
    } finally {
      release();
    }
  }

  /** True while somebody holds or waits for `key`. */
  isHeld(key: string): boolean {
    return this.#tails.has(key);
  }
}
