import type { PhaseTiming } from '../model/sandbox.js';

/** Milliseconds of each phase, in the order in which they began. */
export class Timings {
  readonly #startMs = performance.now();
  readonly #ms = new Map<string, number>();

  add(phase: string, ms: number): void {
    this.#ms.set(phase, (this.#ms.get(phase) ?? 0) + ms);
  }

  async measure<T>(phase: string, body: () => Promise<T>): Promise<T> {
    const startMs = performance.now();
    this.add(phase, 0);
    try {
      return await body();
    } finally {
      this.add(phase, performance.now() - startMs);
    }
  }

  finish(): PhaseTiming[] {
    this.#ms.set('total', performance.now() - this.#startMs);
    return [...this.#ms].map(([phase, ms]) => ({ phase, ms: Math.round(ms * 100) / 100 }));
  }
}
