import type { FSWatcher } from 'node:fs';
import { watch } from 'node:fs';
import { dirname } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { sleep, throwIfDone, withCancel } from '../../lib/base/context.js';
import type { LogLine } from '../../lib/wire/crilog/line.js';
import type { LogFile } from './log-file.js';

/** CRI has no event for the end of a container that every runtime serves, so its state is asked for. */
const stateIntervalMs = 500;

/**
 * Lines of a log as they come, from where `file` stands, until `hasEnded` and nothing is left. The daemon reports an end after it has
 * written the container's last output, so what is read after that is complete. Closes the file.
 */
export async function* followLog(
  ctx: Context,
  file: LogFile,
  hasEnded: () => Promise<boolean>,
): AsyncGenerator<LogLine, void> {
  const changes = new ChangeWatch(dirname(file.path));
  try {
    for (;;) {
      throwIfDone(ctx);
      const ended = await hasEnded();
      yield* file.newLines();
      if (ended) return;
      await changes.wait(ctx, stateIntervalMs);
    }
  } finally {
    changes.close();
    await file.close();
  }
}

/** Waits for a change in a directory, or for the time to be up: not every file system tells of changes. */
class ChangeWatch {
  readonly #watcher: FSWatcher | undefined;
  #wake: () => void = () => undefined;
  #changed = false;

  constructor(directory: string) {
    try {
      this.#watcher = watch(directory, () => {
        this.#changed = true;
        this.#wake();
      });
      this.#watcher.on('error', () => undefined);
    } catch {
      // The directory comes with the first line; until then the timer is enough.
    }
  }

  async wait(ctx: Context, timeoutMs: number): Promise<void> {
    if (!this.#changed) {
      const timer = withCancel(ctx);
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await Promise.race([woken, sleep(timer, timeoutMs)]).finally(() => {
        timer.cancel();
      });
    }
    this.#changed = false;
  }

  close(): void {
    this.#watcher?.close();
  }
}
