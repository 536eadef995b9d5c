import type { BuildPhase, BuildPhaseListener } from '../../cri/ports.js';

/** One build that runs, and those who follow it: it may have more than one, and they may come late. */
export class BuildProgress {
  readonly #listeners = new Set<BuildPhaseListener>();
  #phase: BuildPhase = 'preparing';

  get phase(): BuildPhase {
    return this.#phase;
  }

  enter(phase: BuildPhase): void {
    this.#phase = phase;
    for (const listener of this.#listeners) listener(phase);
  }

  /** Hears the phase of now at once, then each that is entered, until `body` ends. */
  async follow<T>(listener: BuildPhaseListener, body: () => Promise<T>): Promise<T> {
    // A listener that follows twice is two.
    const own: BuildPhaseListener = (phase) => {
      listener(phase);
    };
    this.#listeners.add(own);
    try {
      own(this.#phase);
      return await body();
    } finally {
      this.#listeners.delete(own);
    }
  }
}
