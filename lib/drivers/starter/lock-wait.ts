import { getSystemErrorName } from 'node:util';

import { HerkosError } from '../../base/errors.js';
import type { LockReport } from '../../wire/starter/messages.js';

/** Until one starter has the lock. That of a daemon that was killed just now ends a little later than the daemon. */
export class LockWait {
  /** Rejects when another daemon keeps it, or it cannot be had. */
  readonly taken: Promise<void>;
  readonly #path: string;
  readonly #timer: NodeJS.Timeout;
  #resolve: () => void = () => undefined;
  #reject: (error: HerkosError) => void = () => undefined;
  #why: HerkosError;

  constructor(path: string, timeoutMs: number) {
    this.#path = path;
    this.#why = new HerkosError('Unavailable', `the starter of programs does not say whether it has ${path}`);
    this.taken = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Not everybody waits.
    this.taken.catch(() => undefined);
    this.#timer = setTimeout(() => {
      this.fail(this.#why);
    }, timeoutMs);
  }

  onReport(report: LockReport): void {
    switch (report.lock) {
      case 'taken':
        clearTimeout(this.#timer);
        this.#resolve();
        return;
      case 'held':
        this.#why = inUse(this.#path, report.pid);
        return;
      case 'failed': {
        const why = getSystemErrorName(-report.errno);
        this.fail(new HerkosError('FailedPrecondition', `cannot lock ${this.#path}: ${why}`));
      }
    }
  }

  /** It will not come any more. */
  fail(error: HerkosError): void {
    clearTimeout(this.#timer);
    this.#reject(error);
  }
}

function inUse(path: string, pid: number): HerkosError {
  return new HerkosError(
    'FailedPrecondition',
    `another daemon uses this state_dir: its starter, process ${String(pid)}, has locked ${path}; stop that daemon, or configure another instance with a state_dir of its own`,
    { reason: 'STATE_DIR_IN_USE' },
  );
}
