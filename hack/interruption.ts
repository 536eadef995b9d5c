/** Ctrl-C and its like end a program that has to clean up: it hears of them between two steps. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class Interruption {
  readonly #onSignal = (name: NodeJS.Signals): void => {
    this.#name ??= name;
    this.#child?.kill('SIGTERM');
  };
  #name: NodeJS.Signals | undefined;
  #child: ChildProcess | undefined;

  constructor() {
    for (const name of signals) process.on(name, this.#onSignal);
  }

  /** @throws Error when a signal has come */
  check(): void {
    if (this.#name !== undefined) throw new Error(`interrupted by ${this.#name}`);
  }

  /** To the child's end, which a signal brings about. @returns its exit code @throws Error as `check` does */
  async ended(child: ChildProcess): Promise<number | null> {
    this.#child = child;
    try {
      const [code] = (await once(child, 'close')) as [number | null];
      this.check();
      return code;
    } finally {
      this.#child = undefined;
    }
  }

  /** From now on signals are heard and forgotten: what cleans up must come to its end. */
  forget(): void {
    this.#name = undefined;
    for (const name of signals) process.off(name, this.#onSignal).on(name, ignore);
  }

  /** Signals do again what they do by themselves. */
  dispose(): void {
    for (const name of signals) process.off(name, this.#onSignal).off(name, ignore);
  }
}

function ignore(): void {
  // Heard.
}
