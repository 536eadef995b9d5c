import { HerkosError } from '../base/errors.js';

/** One unprivileged user per VM: two VMs that shared one could trace and signal each other. */
export class UidPool {
  readonly #first: number;
  readonly #count: number;
  readonly #used = new Set<number>();
  /** Goes round, so that what a dead VM may have left behind is not soon somebody else's. */
  #next = 0;

  constructor(first: number, count: number) {
    this.#first = first;
    this.#count = count;
  }

  /** @throws HerkosError `ResourceExhausted` when every uid is in use */
  take(): number {
    for (let tried = 0; tried < this.#count; tried += 1) {
      const uid = this.#first + ((this.#next + tried) % this.#count);
      if (this.#used.has(uid)) continue;
      this.#used.add(uid);
      this.#next = uid - this.#first + 1;
      return uid;
    }
    throw new HerkosError(
      'ResourceExhausted',
      `all ${String(this.#count)} user ids for VMs are in use; raise uid_count`,
    );
  }

  /** Marks a uid that a VM from before has. */
  reserve(uid: number): void {
    this.#used.add(uid);
  }

  give(uid: number): void {
    this.#used.delete(uid);
  }
}
