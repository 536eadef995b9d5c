import { HerkosError, classOf, messageOf } from './errors.js';

interface Undo {
  readonly name: string;
  readonly run: () => Promise<void>;
}

/**
 * What has been done and how to undo it. Steps are undone in reverse; every undo is tried even when
 * one fails, and a failed undo becomes part of the error, so that a leak is never silent.
 */
export class Rollback {
  readonly #undos: Undo[] = [];

  push(name: string, run: () => Promise<void>): void {
    this.#undos.push({ name, run });
  }

  /** Keeps everything: nothing will be undone. */
  commit(): void {
    this.#undos.length = 0;
  }

  /** Undoes all steps and returns the error to throw: `cause`, with the failed undos named in it. */
  async undo(cause: unknown): Promise<HerkosError> {
    const failed: string[] = [];
    for (let step = this.#undos.pop(); step !== undefined; step = this.#undos.pop()) {
      try {
        await step.run();
      } catch (error) {
        failed.push(`${step.name}: ${messageOf(error)}`);
      }
    }
    if (failed.length === 0 && cause instanceof HerkosError) return cause;
    const suffix = failed.length === 0 ? '' : ` (and could not undo ${failed.join('; ')})`;
    return new HerkosError(classOf(cause), `${messageOf(cause)}${suffix}`, { cause });
  }
}

/** Runs `body` with a rollback stack that is undone when it throws. */
export async function withRollback<T>(body: (undo: Rollback) => Promise<T>): Promise<T> {
  const undo = new Rollback();
  try {
    const result = await body(undo);
    undo.commit();
    return result;
  } catch (error) {
    throw await undo.undo(error);
  }
}

/** Like Promise.all, but waits for all before it throws: what is still being made cannot be undone. */
export async function allOrError<A, B>(both: readonly [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(both);
  return Promise.all(both);
}
