/** Pods that come and go for a while: nothing of them may stay, and the daemon must not grow. */
import { sleep } from '../../lib/base/context.js';
import type { Bench } from './bench.js';
import { row, shownMs, spread } from './bench.js';
import { run } from './interrupt.js';
import { OwnNode } from './own-node.js';
import { residentMib } from './process-memory.js';
import { slope } from './slope.js';

const podCount = 200;
const quickPodCount = 8;
const atATime = 8;
/** The heap has its size after some pods; growth is what comes after. */
const warmUpPart = 0.2;
const settleMs = 5_000;

export const soak: Bench = {
  names: ['soak-leftovers', 'soak-rss-growth', 'soak-pod'],
  about: '200 pods run and removed, 8 at a time: what is left of them, and the growth of the daemon',
  minutes: 2,
  async run({ say, quick }) {
    const total = quick ? quickPodCount : podCount;
    const node = await OwnNode.start('clone');
    const { herkosd } = node;
    try {
      const before = new Set(await herkosd.leftovers());
      const ms: number[] = [];
      const rss: number[] = [];
      await inTurns(total, async () => {
        ms.push((await node.onePod()).ms);
        rss.push(await residentMib(herkosd.pid));
        if (ms.length % 25 === 0)
          say(`${String(ms.length)} pods, the daemon has ${rss.at(-1)?.toFixed(0) ?? ''} MiB`);
      });
      await sleep(run, settleMs);
      // A template may be built or a pool filled meanwhile; those are told by their names, not by number.
      const left = (await herkosd.leftovers()).filter((line) => !before.has(line));
      for (const line of left) say(`left over: ${line}`);
      const after = rss.slice(Math.floor(total * warmUpPart));
      const line = slope(after);
      say(`${shownMs([spread(ms).median])} a pod; the daemon: ${line.perStep.toFixed(3)} MiB more with each`);
      return [
        row({ name: 'soak-leftovers', unit: 'things', samples: [left.length], goal: '0' }),
        row({
          name: 'soak-rss-growth',
          unit: 'MiB',
          samples: [line.perStep * after.length],
          goal: 'flat',
        }),
        row({ name: 'soak-pod', unit: 'ms', samples: ms, goal: '-' }),
      ];
    } finally {
      await node.cleanUp();
    }
  },
};

/** Runs `body` as often as told, `atATime` at once. */
async function inTurns(count: number, body: () => Promise<void>): Promise<void> {
  let begun = 0;
  const lane = async (): Promise<void> => {
    while (begun < count) {
      begun += 1;
      await body();
    }
  };
  await Promise.all(Array.from({ length: atATime }, lane));
}
