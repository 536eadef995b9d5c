/** Our side of the comparisons: a daemon that gives VMs in one certain way, and proof that it did. */
import { throwIfDone } from '../../lib/base/context.js';
import { MIB } from '../../lib/base/units.js';
import { vmSection } from '../../lib/config/vm.js';
import type { VmShape, VmSource } from '../../lib/model/vm.js';
import { builtTemplate } from '../tools/built-template.js';
import { HerkosdProcess } from '../tools/herkosd-process.js';
import { sandboxConfig } from '../tools/pod-config.js';
import type { Phase, PhaseBar } from './bench.js';
import { timed } from './bench.js';
import { run } from './interrupt.js';
import { fullPool } from './ready-vms.js';

/** Lines of `[vm]` that make the daemon take VMs from one source, and from no other. */
const vmLines: Readonly<Record<VmSource, (poolSize: number) => readonly string[]>> = {
  // Many that boot at once on a small machine take longer than a node gives one by default.
  cold: () => ['templates = false', 'boot_timeout_seconds = 600'],
  clone: () => ['templates = true', 'pool = 0'],
  pool: (size) => ['templates = true', `pool = ${String(size)}`],
};

/** One is taken while another is made ready. */
const poolSizeDefault = 2;
/** 50 cold boots take turns on a small machine. */
const podTimeoutMs = 600_000;

export interface StartedPod {
  readonly id: string;
  readonly ms: number;
  readonly phases: readonly Phase[];
}

/** What the daemon tells of a pod, as far as benchmarks look at it. */
interface PodFacts {
  readonly timings: readonly Phase[];
  readonly vm: { readonly source: VmSource; readonly shape: VmShape };
}

export class OwnNode {
  readonly herkosd: HerkosdProcess;
  readonly source: VmSource;
  /** The machine of its pods. */
  readonly shape: VmShape;
  readonly #poolSize: number;

  private constructor(herkosd: HerkosdProcess, source: VmSource, shape: VmShape, poolSize: number) {
    this.herkosd = herkosd;
    this.source = source;
    this.shape = shape;
    this.#poolSize = poolSize;
  }

  /**
   * Starts a daemon and makes one pod, which is not measured: it makes the bridge of the built-in network.
   * @param poolSize VMs that wait ready, where they come from a pool
   */
  static async start(source: VmSource, poolSize = poolSizeDefault): Promise<OwnNode> {
    const herkosd = await HerkosdProcess.start({
      logLevel: 'info',
      config: { vm: vmLines[source](poolSize).join('\n') },
    });
    try {
      if (source !== 'cold') await builtTemplate(run, herkosd.socketPath);
      if (source === 'pool') await fullPool(herkosd.socketPath, poolSize);
      const { podSandboxId } = await herkosd.client.runtime('runPodSandbox', { config: sandboxConfig() });
      const { vm } = await checkedFacts(herkosd, podSandboxId, source);
      await removeFrom(herkosd, podSandboxId);
      return new OwnNode(herkosd, source, vm.shape, poolSize);
    } catch (error) {
      await herkosd.cleanUp();
      throw error;
    }
  }

  /** Waits until the pool is full again and the machine has done with that; nothing to wait for elsewhere. */
  async ready(): Promise<void> {
    throwIfDone(run);
    if (this.source === 'pool') await fullPool(this.herkosd.socketPath, this.#poolSize);
  }

  /**
   * RunPodSandbox, called until it returns.
   * @throws Error when its VM came from elsewhere: a figure of another kind of VM would be a wrong one
   */
  async startPod(): Promise<StartedPod> {
    let id = '';
    const config = sandboxConfig();
    const ms = await timed(async () => {
      id = await this.#call(config);
    });
    return { id, ms, phases: (await checkedFacts(this.herkosd, id, this.source)).timings };
  }

  /** A pod that is started, timed and removed. */
  async onePod(): Promise<StartedPod> {
    await this.ready();
    const pod = await this.startPod();
    await this.removePods([pod]);
    return pod;
  }

  /** `count` pods at once: first call to last READY. */
  async manyPods(count: number): Promise<{ readonly pods: StartedPod[]; readonly ms: number }> {
    await this.ready();
    let ids: string[] = [];
    // What is asked about each pod afterwards is not part of it.
    const ms = await timed(async () => {
      ids = await Promise.all(Array.from({ length: count }, async () => this.#call(sandboxConfig())));
    });
    const pods: StartedPod[] = [];
    for (const id of ids) {
      const { timings } = await checkedFacts(this.herkosd, id, this.source);
      pods.push({ id, ms: totalOf(timings), phases: timings });
    }
    return { pods, ms };
  }

  async removePods(pods: readonly StartedPod[]): Promise<void> {
    await Promise.all(pods.map(async ({ id }) => removeFrom(this.herkosd, id)));
  }

  async cleanUp(): Promise<void> {
    await this.herkosd.cleanUp();
  }

  async #call(config: ReturnType<typeof sandboxConfig>): Promise<string> {
    const answer = await this.herkosd.client.runtime(
      'runPodSandbox',
      { config },
      { timeoutMs: podTimeoutMs },
    );
    return answer.podSandboxId;
  }
}

/** The machine of a pod without limits, as the configuration has it by default. */
export function shapeDefault(): VmShape {
  const { vcpus, memory } = vmSection.parse({});
  return { vcpus, memoryMib: Math.ceil(memory / MIB) };
}

/** The bar of the sample that is the median (the lower of two). */
export function medianBar(label: string, pods: readonly StartedPod[]): PhaseBar {
  const sorted = [...pods].sort((a, b) => a.ms - b.ms);
  return { label, phases: sorted[Math.floor((sorted.length - 1) / 2)]?.phases ?? [] };
}

async function removeFrom(herkosd: HerkosdProcess, podSandboxId: string): Promise<void> {
  await herkosd.client.runtime('stopPodSandbox', { podSandboxId });
  await herkosd.client.runtime('removePodSandbox', { podSandboxId });
}

function totalOf(phases: readonly Phase[]): number {
  return phases.find(({ phase }) => phase === 'total')?.ms ?? Number.NaN;
}

async function factsOf(herkosd: HerkosdProcess, podSandboxId: string): Promise<PodFacts> {
  const { info } = await herkosd.client.runtime('podSandboxStatus', { podSandboxId, verbose: true });
  return JSON.parse(info['info'] ?? '{}') as PodFacts;
}

/** @throws Error when the pod's VM came from elsewhere */
async function checkedFacts(herkosd: HerkosdProcess, id: string, source: VmSource): Promise<PodFacts> {
  const facts = await factsOf(herkosd, id);
  if (facts.vm.source !== source)
    throw new Error(
      `a pod's VM came from '${facts.vm.source}', not from '${source}' as this benchmark needs; ` +
        "the daemon's log tells why",
    );
  return facts;
}
