/** Taking down what an earlier daemon left behind. */
import type { Context } from '../base/context.js';
import { underDeadline } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { Semaphore } from '../base/semaphore.js';
import type { Leftover, Swept } from '../pod/ports.js';

/** Most take milliseconds; a few that hang must not keep the rest. */
const itemsAtATime = 4;
const itemTimeoutMs = 30_000;

/** One sweep: each thing has a deadline of its own, and one that cannot be removed does not keep the others. */
export class Sweep {
  readonly #ctx: Context;
  readonly #logger: Logger;
  readonly #limit = new Semaphore(itemsAtATime);
  readonly #removed: string[] = [];
  readonly #left: Leftover[] = [];

  constructor(ctx: Context, logger: Logger) {
    this.#ctx = ctx;
    this.#logger = logger;
  }

  get result(): Swept {
    return { removed: this.#removed, left: this.#left };
  }

  /** @param body - may be tried again, also while an earlier try still hangs */
  async remove(what: string, body: (ctx: Context) => Promise<void>): Promise<void> {
    if (await this.attempt(what, body)) this.#removed.push(what);
  }

  /** The same of what is there or not. @returns whether it worked */
  async attempt(what: string, body: (ctx: Context) => Promise<void>): Promise<boolean> {
    const remove = (ctx: Context): Promise<void> =>
      underDeadline(ctx, itemTimeoutMs, `removing ${what}`, body);
    try {
      await this.#limit.run(this.#ctx, () => remove(this.#ctx));
      return true;
    } catch (error) {
      this.#left.push({ what, remove });
      this.#logger.error('cannot sweep', { what, error: messageOf(error) });
      return false;
    }
  }
}
