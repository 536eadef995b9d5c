/** Loaded by mocha before any test (`--require`): a failure on a machine that is gone tomorrow needs its logs. */
import type { Context } from 'mocha';

import { runningDaemons } from './herkosd-process.js';

const linesMax = 80;

export const mochaHooks = {
  async afterEach(this: Context): Promise<void> {
    if (this.currentTest?.state !== 'failed') return;
    for (const daemon of runningDaemons) {
      const lines = (await daemon.log()).trimEnd().split('\n').slice(-linesMax);
      process.stderr.write(`--- the last ${String(lines.length)} log lines of ${daemon.instance}\n`);
      process.stderr.write(`${lines.join('\n')}\n---\n`);
    }
  },
};
