/** Loaded by mocha before any test (`--require`): a failure on a machine that is gone tomorrow needs its logs. */
import type { Context } from 'mocha';

import { finishedLogs, runningDaemons } from './herkosd-process.js';

const linesMax = 80;

export const mochaHooks = {
  async afterEach(this: Context): Promise<void> {
    const logs = new Map(finishedLogs);
    finishedLogs.clear();
    if (this.currentTest?.state !== 'failed') return;
    for (const daemon of runningDaemons) logs.set(daemon.instance, await daemon.log());
    for (const [instance, log] of logs) {
      const lines = log.trimEnd().split('\n').slice(-linesMax);
      process.stderr.write(`--- the last ${String(lines.length)} log lines of ${instance}\n`);
      process.stderr.write(`${lines.join('\n')}\n---\n`);
    }
  },
};
