import { sleep } from '../../lib/base/context.js';
import { HerkosdProcess } from '../tools/herkosd-process.js';
import type { Bench } from './bench.js';
import { row } from './bench.js';
import { run } from './interrupt.js';
import { residentMib } from './process-memory.js';

const settleMs = 5_000;
const samples = 5;
const sampleEveryMs = 1_000;

export const daemonMemory: Bench = {
  names: ['daemon-rss-idle'],
  about: 'resident memory of the daemon without pods',
  minutes: 1,
  async run({ say }) {
    const herkosd = await HerkosdProcess.start({ logLevel: 'info' });
    try {
      await sleep(run, settleMs);
      const idle: number[] = [];
      for (let index = 0; index < samples; index += 1) {
        idle.push(await residentMib(herkosd.pid));
        await sleep(run, sampleEveryMs);
      }
      say(`${idle.map((value) => value.toFixed(1)).join(' ')} MiB`);
      return [row({ name: 'daemon-rss-idle', unit: 'MiB', samples: idle, goal: '<= 100 MiB' })];
    } finally {
      await herkosd.cleanUp();
    }
  },
};
