/** Pods that come and go for a while: nothing of them may stay, and the daemon must not grow. */
import { sleep } from '../../lib/base/context.js';
import type { Bench } from './bench.js';
import { row, shownMs, spread } from './bench.js';
import { run } from './interrupt.js';
import { OwnNode } from './own-node.js';
import { residentMib } from './process-memory.js';

const podCount = 200;
const quickPodCount = 8;
const atATime = 8;
/** Code is compiled and the heap has its size after some pods; growth is what comes after. */
const warmUpPart = 0.2;
/** A heap under load grows until it is collected, and gives back what it has too much when there is nothing to do. */
const settleMs = 20_000;
const quickSettleMs = 2_000;

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
      /** Pods up to the `upTo`th; then what the daemon has when it has come to rest. */
      const restingMib = async (upTo: number): Promise<number> => {
        await inTurns(upTo - ms.length, async () => {
          ms.push((await node.onePod()).ms);
          if (ms.length % 25 === 0) say(`${String(ms.length)} pods`);
        });
        await sleep(run, quick ? quickSettleMs : settleMs);
        return residentMib(herkosd.pid);
      };
      const firstMib = await restingMib(Math.ceil(total * warmUpPart));
      const lastMib = await restingMib(total);
      // A template may be built or a pool filled meanwhile; those are told by their names, not by number.
      const left = (await herkosd.leftovers()).filter((line) => !before.has(line));
      for (const line of left) say(`left over: ${line}`);
      say(
        `${shownMs([spread(ms).median])} a pod; the daemon: ${firstMib.toFixed(1)}, then ${lastMib.toFixed(1)} MiB`,
      );
      return [
        row({ name: 'soak-leftovers', unit: 'things', samples: [left.length], goal: '0' }),
        row({
          name: 'soak-rss-growth',
          unit: 'MiB',
          samples: [lastMib - firstMib],
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
