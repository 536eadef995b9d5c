/** RunPodSandbox until READY, one pod at a time, for each way a pod may come by its VM. */
import type { VmSource } from '../../lib/model/vm.js';
import type { Bench, BenchTools, Row } from './bench.js';
import { row, shownMs } from './bench.js';
import { ContainerdNode } from './containerd-node.js';
import { run } from './interrupt.js';
import type { StartedPod } from './own-node.js';
import { OwnNode, medianBar } from './own-node.js';
import { RawTemplate } from './raw-template.js';
import { rawBoot, rawMachine } from './raw-vm.js';

const rounds = 7;
const quickRounds = 3;

/** Called once a round, in turns with the pod that it is compared with; gives milliseconds. */
type Peer = () => Promise<number>;

export const sandboxCold: Bench = {
  names: ['sandbox-cold'],
  about: 'RunPodSandbox until READY, against a raw QEMU boot of the same kernel and images',
  minutes: 1,
  async run(tools) {
    const { own, peer } = await against(tools, 'cold', async ({ shape }, measure) => {
      const machine = await rawMachine(shape);
      await measure(async () => rawBoot(run, machine));
    });
    return [msRow('sandbox-cold', own, '<= 1.15 x', 'raw QEMU cold boot', peer)];
  },
};

export const sandboxClone: Bench = {
  names: ['sandbox-clone', 'sandbox-clone-vs-cold'],
  about: 'RunPodSandbox from a template, against a raw clone by hand and against a cold pod',
  minutes: 2,
  async run(tools) {
    const cold = await OwnNode.start('cold');
    const coldMs: number[] = [];
    try {
      const { own, peer } = await against(tools, 'clone', async ({ shape }, measure) => {
        const template = await RawTemplate.make(await rawMachine(shape));
        try {
          await measure(async () => {
            coldMs.push((await cold.onePod()).ms);
            return template.timedClones(1);
          });
        } finally {
          await template.remove();
        }
      });
      tools.say(`cold ${shownMs(coldMs)}`);
      return [
        msRow('sandbox-clone', own, '<= 1.3 x', 'raw clone', peer),
        msRow('sandbox-clone-vs-cold', own, '<= 0.1 x', 'sandbox-cold', coldMs),
      ];
    } finally {
      await cold.cleanUp();
    }
  },
};

export const sandboxPool: Bench = {
  names: ['sandbox-pool'],
  about: 'RunPodSandbox from the pool, against containerd + runc with the same CNI configuration',
  minutes: 1,
  async run(tools) {
    const { own, peer } = await against(tools, 'pool', async ({ herkosd }, measure) => {
      const containerd = await ContainerdNode.start(herkosd);
      try {
        await containerd.onePod();
        await measure(async () => containerd.onePod());
      } finally {
        await containerd.stop();
      }
    });
    return [msRow('sandbox-pool', own, '<= 1.0 x', 'containerd + runc, same CNI', peer)];
  },
};

/** Pods of ours and their peer in turns, so that what the machine does besides hits both. */
async function against(
  { say, quick, chart }: BenchTools,
  source: VmSource,
  withPeer: (node: OwnNode, measure: (peer: Peer) => Promise<void>) => Promise<void>,
): Promise<{ own: StartedPod[]; peer: number[] }> {
  const node = await OwnNode.start(source);
  const own: StartedPod[] = [];
  const peer: number[] = [];
  try {
    await withPeer(node, async (other) => {
      for (let round = 0; round < (quick ? quickRounds : rounds); round += 1) {
        // What one side leaves to be done must not fall into the other's time.
        await node.ready();
        peer.push(await other());
        own.push(await node.onePod());
      }
    });
  } finally {
    await node.cleanUp();
  }
  say(`${source}: ${shownMs(own.map(({ ms }) => ms))}; peer ${shownMs(peer)}`);
  chart(medianBar(source, own));
  return { own, peer };
}

function msRow(
  name: string,
  own: readonly StartedPod[],
  goal: string,
  peerName: string,
  peer: readonly number[],
): Row {
  const samples = own.map(({ ms }) => ms);
  return row({ name, unit: 'ms', samples, goal, peer: { name: peerName, samples: peer } });
}
