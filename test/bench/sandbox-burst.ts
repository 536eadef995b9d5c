/** Many pods at once: first call to last READY. */
import type { VmSource } from '../../lib/model/vm.js';
import type { Bench, BenchTools, Row } from './bench.js';
import { row, shownMs } from './bench.js';
import { OwnNode, medianBar } from './own-node.js';
import { RawTemplate } from './raw-template.js';
import { rawMachine } from './raw-vm.js';

const counts = [10, 25];
const quickCounts = [4];
const rounds = 3;

/** Against as many raw clones at once, in turns. */
export const sandboxBurst: Bench = {
  names: counts.map((count) => `sandbox-x${String(count)}`),
  about: '10 and 25 pods at once from a template, against as many raw clones at once',
  minutes: 2,
  async run(tools) {
    return withNode(tools, 'clone', async (node) => {
      const template = await RawTemplate.make(await rawMachine(node.shape));
      try {
        const rows: Row[] = [];
        for (const count of countsOf(tools)) {
          const raw: number[] = [];
          const own = await burst(tools, node, count, async () => {
            raw.push(await template.timedClones(count));
          });
          tools.say(`${String(count)} raw clones at once: ${shownMs(raw)}`);
          const peer = { name: `${String(count)} raw clones at once`, samples: raw };
          const name = `sandbox-x${String(count)}`;
          rows.push(row({ name, unit: 'ms', samples: own, goal: count === 25 ? '<= 1.3 x' : '-', peer }));
        }
        return rows;
      } finally {
        await template.remove();
      }
    });
  },
};

/** Cold machines and those of a pool, without a peer: there is none that does the same. */
export const otherBursts: Bench = {
  names: counts.flatMap((count) => [`sandbox-cold-x${String(count)}`, `sandbox-pool-x${String(count)}`]),
  about: '10 and 25 pods at once, booted cold and from the pool',
  minutes: 7,
  async run(tools) {
    const rows: Row[] = [];
    for (const source of ['cold', 'pool'] as const) {
      await withNode(tools, source, async (node) => {
        for (const count of countsOf(tools)) {
          const samples = await burst(tools, node, count, async () => Promise.resolve());
          rows.push(row({ name: `sandbox-${source}-x${String(count)}`, unit: 'ms', samples, goal: '-' }));
        }
      });
    }
    return rows;
  },
};

function countsOf({ quick }: BenchTools): readonly number[] {
  return quick ? quickCounts : counts;
}

async function withNode<T>(
  tools: BenchTools,
  source: VmSource,
  body: (node: OwnNode) => Promise<T>,
): Promise<T> {
  const node = await OwnNode.start(source, Math.max(...countsOf(tools)));
  try {
    return await body(node);
  } finally {
    await node.cleanUp();
  }
}

/** Milliseconds of each round; `before` is what happens between rounds, unmeasured. */
async function burst(
  { say, quick, chart }: BenchTools,
  node: OwnNode,
  count: number,
  before: () => Promise<void>,
): Promise<number[]> {
  const samples: number[] = [];
  for (let round = 0; round < (quick ? 1 : rounds); round += 1) {
    await before();
    const { pods, ms } = await node.manyPods(count);
    samples.push(ms);
    if (round === 0) chart(medianBar(`${node.source}, ${String(count)} at once`, pods));
    await node.removePods(pods);
  }
  say(`${node.source}, ${String(count)} at once: ${shownMs(samples)}`);
  return samples;
}
