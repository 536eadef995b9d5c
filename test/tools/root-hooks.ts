/** Loaded by mocha before any test (`--require`): a failure on a machine that is gone tomorrow needs its logs. */
import type { Context } from 'mocha';

import { finishedLogs } from './herkosd-process.js';
import { lastLines, takeLogs } from './last-logs.js';

const linesMax = 80;

export const mochaHooks = {
  async afterEach(this: Context): Promise<void> {
    if (this.currentTest?.state !== 'failed') finishedLogs.clear();
    else process.stderr.write(lastLines(await takeLogs(), linesMax));
  },
};
