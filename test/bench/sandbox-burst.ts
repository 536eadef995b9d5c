/** Many pods at once: first call to last READY. */
import type { VmSource } from '../../lib/model/vm.js';
import type { Bench, BenchTools, Row } from './bench.js';
import { row, shownMs, timed } from './bench.js';
import { ContainerdNode } from './containerd-node.js';
import { run } from './interrupt.js';
import { OwnNode, medianBar } from './own-node.js';
import { RawTemplate } from './raw-template.js';
import { rawBoot, rawMachine } from './raw-vm.js';

const counts = [10, 25];
const quickCounts = [4];
const rounds = 3;
const goals: Readonly<Record<string, string>> = { 'sandbox-x25': '<= 1.3 x' };

/** As many of the other side at once, in milliseconds. */
type PeerBurst = (count: number) => Promise<number>;

interface Peer {
  readonly name: string;
  readonly burst: PeerBurst;
}

/** Against as many raw clones at once, in turns. */
export const sandboxBurst: Bench = {
  names: counts.map((count) => `sandbox-x${String(count)}`),
  about: '10 and 25 pods at once from a template, against as many raw clones at once',
  minutes: 2,
  async run(tools) {
    return withNode(tools, 'clone', async (node) => {
      const template = await RawTemplate.make(await rawMachine(node.shape));
      try {
        const peer = { name: 'raw clones', burst: (count: number) => template.timedClones(count) };
        return await bursts(tools, node, 'sandbox', peer);
      } finally {
        await template.remove();
      }
    });
  },
};

/** Booted cold against as many raw machines that boot. */
export const coldBurst: Bench = {
  names: counts.map((count) => `sandbox-cold-x${String(count)}`),
  about: '10 and 25 pods at once, booted cold, against as many raw boots at once',
  minutes: 8,
  async run(tools) {
    return withNode(tools, 'cold', async (node) => {
      const machine = await rawMachine(node.shape);
      const boots: PeerBurst = async (count) =>
        timed(async () => Promise.all(Array.from({ length: count }, async () => rawBoot(run, machine))));
      return bursts(tools, node, 'sandbox-cold', { name: 'raw boots', burst: boots });
    });
  },
};

/** From a full pool against what a node without VMs does. */
export const poolBurst: Bench = {
  names: counts.map((count) => `sandbox-pool-x${String(count)}`),
  about: '10 and 25 pods at once from the pool, against containerd + runc with the same CNI configuration',
  minutes: 3,
  async run(tools) {
    return withNode(tools, 'pool', async (node) => {
      const containerd = await ContainerdNode.start(node.herkosd);
      try {
        await containerd.onePod();
        const peer = { name: 'containerd + runc', burst: (count: number) => containerd.manyPods(count) };
        return await bursts(tools, node, 'sandbox-pool', peer);
      } finally {
        await containerd.stop();
      }
    });
  },
};

async function bursts(tools: BenchTools, node: OwnNode, name: string, peer: Peer): Promise<Row[]> {
  const rows: Row[] = [];
  for (const count of countsOf(tools)) {
    const samples: number[] = [];
    const own = await burst(tools, node, count, async () => {
      samples.push(await peer.burst(count));
    });
    const peerName = `${String(count)} ${peer.name} at once`;
    tools.say(`${peerName}: ${shownMs(samples)}`);
    rows.push(
      row({
        name: `${name}-x${String(count)}`,
        unit: 'ms',
        samples: own,
        goal: goals[`${name}-x${String(count)}`] ?? '-',
        peer: { name: peerName, samples },
      }),
    );
  }
  return rows;
}

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
