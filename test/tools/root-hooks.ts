/** Loaded by mocha before any test (`--require`): a failure on a machine that is gone tomorrow needs its logs. */
import type { Context } from 'mocha';

import { finishedLogs } from './herkosd-process.js';
import { lastLines, takeLogs } from './last-logs.js';

const linesMax = 80;

// Mocha lets them pass unseen while tests run; they would end a daemon.
process.on('unhandledRejection', (reason) => {
  throw reason instanceof Error ? reason : new Error(`unhandled rejection: ${String(reason)}`);
});

export const mochaHooks = {
  async afterEach(this: Context): Promise<void> {
    if (this.currentTest?.state !== 'failed') finishedLogs.clear();
    else process.stderr.write(lastLines(await takeLogs(), linesMax));
  },
};
