import { setTimeout as delay } from 'node:timers/promises';

import { HerkosdProcess } from '../tools/herkosd-process.js';
import { sandboxConfig } from '../tools/pod-config.js';
import type { Bench } from './bench.js';
import { row } from './bench.js';
import { residentMib } from './image-pull.js';

const podCount = 10;
const atATime = 2;
const settleMs = 5_000;
const samples = 5;

export const daemonMemory: Bench = {
  names: ['daemon-rss-idle', 'daemon-rss-per-pod'],
  about: 'resident memory of the daemon, idle and for each of 10 running pods',
  async run({ say }) {
    const herkosd = await HerkosdProcess.start();
    try {
      await delay(settleMs);
      const idle = await sample(herkosd);
      say(`idle ${idle.map((value) => value.toFixed(1)).join(' ')} MiB; starting ${String(podCount)} pods`);
      for (let index = 0; index < podCount; index += atATime) {
        await Promise.all(
          Array.from({ length: atATime }, async (_, offset) =>
            herkosd.client.runtime('runPodSandbox', {
              config: sandboxConfig({ name: `pod-${String(index + offset)}` }),
            }),
          ),
        );
      }
      await delay(settleMs);
      const full = await sample(herkosd);
      await herkosd.removeAllPods();
      const base = Math.min(...idle);
      return [
        row({ name: 'daemon-rss-idle', unit: 'MiB', samples: idle, goal: '<= 100 MiB' }),
        row({
          name: 'daemon-rss-per-pod',
          unit: 'MiB',
          samples: full.map((value) => (value - base) / podCount),
          goal: '<= 0.5 MiB',
        }),
      ];
    } finally {
      await herkosd.cleanUp();
    }
  },
};

async function sample(herkosd: HerkosdProcess): Promise<number[]> {
  const values: number[] = [];
  for (let index = 0; index < samples; index += 1) {
    values.push(await residentMib(herkosd.pid));
    await delay(1_000);
  }
  return values;
}
