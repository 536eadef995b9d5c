/** One pod after the other up to 50: what each costs in time, and what they cost together in memory. */
import { sleep } from '../../lib/base/context.js';
import type { VmShape } from '../../lib/model/vm.js';
import type { HerkosdProcess } from '../tools/herkosd-process.js';
import type { Bench, BenchTools, Row } from './bench.js';
import { row, spread } from './bench.js';
import { run } from './interrupt.js';
import type { MemoryUse } from './process-memory.js';
import { medianUse, memoryOfAll, perPod, podProcesses, residentMib, shownUse } from './process-memory.js';
import type { StartedPod } from './own-node.js';
import { OwnNode } from './own-node.js';
import { RawTemplate } from './raw-template.js';
import { rawMachine } from './raw-vm.js';
import type { RawVm } from './raw-vm.js';
import { slope } from './slope.js';

const stages = [1, 10, 25, 50];
const quickStages = [1, 4];
/** Goals, by the number of pods. */
const pssGoals: Readonly<Record<number, string>> = { 25: '<= 36 MB' };
const settleMs = 10_000;
const quickSettleMs = 2_000;
const samplesEach = 3;
const sampleEveryMs = 1_000;
/** Growth compares this part of the pods at either end. */
const endPart = 0.2;

/** What was seen with `count` pods. */
interface Stage {
  readonly count: number;
  readonly uses: readonly MemoryUse[];
}

interface Grown {
  readonly stages: readonly Stage[];
  readonly pods: readonly StartedPod[];
  readonly rssIdle: readonly number[];
  readonly rssFull: readonly number[];
  readonly shape: VmShape;
}

export const density: Bench = {
  names: [
    ...stages.map((count) => `pss-${String(count)}`),
    'sandbox-growth',
    'sandbox-growth-slope',
    'daemon-rss-per-pod',
  ],
  about:
    'memory of idle pods at 1, 10, 25 and 50 beside raw clones; time of the n-th pod; the daemon’s memory',
  minutes: 3,
  async run(tools) {
    const grown = await ownPods(tools);
    const raw = await rawClones(tools, grown.shape);
    return [...pssRows(grown.stages, raw), ...growthRows(tools, grown.pods), rssRow(grown)];
  },
};

async function ownPods(tools: BenchTools): Promise<Grown> {
  const node = await OwnNode.start('clone');
  const { herkosd, shape } = node;
  try {
    await node.onePod();
    await settle(tools);
    const rssIdle = await rssSamples(herkosd);
    const pods: StartedPod[] = [];
    const seen: Stage[] = [];
    for (const count of stagesOf(tools)) {
      while (pods.length < count) pods.push(await node.startPod());
      await settle(tools);
      seen.push(await stage(tools, count, 'pods', async () => podProcesses(herkosd)));
    }
    const rssFull = await rssSamples(herkosd);
    await node.removePods(pods);
    return { stages: seen, pods, rssIdle, rssFull, shape };
  } finally {
    await node.cleanUp();
  }
}

async function rawClones(tools: BenchTools, shape: VmShape): Promise<Stage[]> {
  const template = await RawTemplate.make(await rawMachine(shape));
  const vms: RawVm[] = [];
  try {
    const seen: Stage[] = [];
    for (const count of stagesOf(tools)) {
      while (vms.length < count) {
        const { vm } = await template.clone();
        vms.push(vm);
      }
      await settle(tools);
      const pids = vms.map(({ pid }) => pid);
      seen.push(await stage(tools, count, 'raw clones', async () => Promise.resolve(pids)));
    }
    return seen;
  } finally {
    await Promise.all(vms.map(async (vm) => vm.end()));
    await template.remove();
  }
}

async function stage(
  { say }: BenchTools,
  count: number,
  what: string,
  pidsNow: () => Promise<readonly number[]>,
): Promise<Stage> {
  const uses: MemoryUse[] = [];
  let processes = 0;
  for (let index = 0; index < samplesEach; index += 1) {
    const pids = await pidsNow();
    processes = pids.length;
    uses.push(perPod(await memoryOfAll(pids), count));
    await sleep(run, sampleEveryMs);
  }
  say(`${String(count)} ${what}, ${String(processes)} processes: ${shownUse(medianUse(uses))} each`);
  return { count, uses };
}

function pssRows(own: readonly Stage[], raw: readonly Stage[]): Row[] {
  return own.flatMap(({ count, uses }) => {
    const peers = raw.find((other) => other.count === count)?.uses ?? [];
    const name = `pss-${String(count)}`;
    const one = (suffix: string, goal: string, pick: (use: MemoryUse) => number): Row =>
      row({
        name: name + suffix,
        unit: 'MB',
        samples: uses.map(pick),
        goal,
        peer: { name: `raw clones${suffix.replace('-', ', ')}`, samples: peers.map(pick) },
      });
    return [
      one('', pssGoals[count] ?? '-', ({ pss }) => pss),
      one('-private', '-', (use) => use.private),
      one('-shared', '-', ({ shared }) => shared),
    ];
  });
}

/** The last pods against the first ones, and the straight line through all of them. */
function growthRows({ say }: BenchTools, pods: readonly StartedPod[]): Row[] {
  const ms = pods.map((pod) => pod.ms);
  const ends = Math.max(1, Math.round(ms.length * endPart));
  const line = slope(ms);
  say(`${String(ms.length)} pods one after the other: ${line.perStep.toFixed(2)} ms more with each`);
  return [
    row({
      name: 'sandbox-growth',
      unit: 'ms',
      samples: ms.slice(-ends),
      goal: 'flat',
      peer: { name: `the first ${String(ends)} of ${String(ms.length)} pods`, samples: ms.slice(0, ends) },
    }),
    {
      ...row({ name: 'sandbox-growth-slope', unit: 'ms/pod', samples: [line.perStep], goal: 'flat' }),
      low: Number((line.perStep - line.error).toPrecision(3)),
      high: Number((line.perStep + line.error).toPrecision(3)),
      n: ms.length,
    },
  ];
}

function rssRow({ rssIdle, rssFull, pods }: Grown): Row {
  const { median: idle } = spread(rssIdle);
  const samples = rssFull.map((value) => (value - idle) / pods.length);
  return row({ name: 'daemon-rss-per-pod', unit: 'MiB', samples, goal: '<= 0.5 MiB' });
}

async function rssSamples(herkosd: HerkosdProcess): Promise<number[]> {
  const values: number[] = [];
  for (let index = 0; index < samplesEach; index += 1) {
    values.push(await residentMib(herkosd.pid));
    await sleep(run, sampleEveryMs);
  }
  return values;
}

async function settle({ quick }: BenchTools): Promise<void> {
  await sleep(run, quick ? quickSettleMs : settleMs);
}

function stagesOf({ quick }: BenchTools): readonly number[] {
  return quick ? quickStages : stages;
}
