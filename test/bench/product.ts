/** Our side of the comparisons: a daemon that gives VMs in one certain way, and proof that it did. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { vmSection } from '../../lib/config/vm.js';
import type { VmShape, VmSource } from '../../lib/model/vm.js';
import type { HerkosdOptions } from '../tools/herkosd-process.js';
import { HerkosdProcess } from '../tools/herkosd-process.js';
import { sandboxConfig } from '../tools/pod-config.js';
import type { Phase, PhaseBar } from './bench.js';
import { timed } from './bench.js';

const mebibyte = 2 ** 20;
const warmUpPauseMs = 1_000;

/** Lines of `[vm]` that make the daemon take VMs from one source, and from no other. */
const vmLines: Readonly<Record<VmSource, string>> = {
  cold: '',
  clone: '',
  pool: '',
};

export function daemonOptions(source: VmSource): HerkosdOptions {
  return { config: { vm: vmLines[source] } };
}

/** The machine of a pod without limits, as the configuration has it by default. */
export function qemuShapeDefault(): VmShape {
  const { vcpus, memory } = vmSection.parse({});
  return { vcpus, memoryMib: Math.ceil(memory / mebibyte) };
}

export interface StartedPod {
  readonly id: string;
  readonly ms: number;
  readonly phases: readonly Phase[];
  readonly shape: VmShape;
}

/** What the daemon tells of a pod, as far as benchmarks look at it. */
interface PodFacts {
  readonly timings: readonly Phase[];
  readonly vm: { readonly source: VmSource; readonly shape: VmShape };
}

/**
 * RunPodSandbox, called until it returns. @param source where its VM must come from: a figure of another
 * kind of VM would be a wrong one.
 */
export async function startPod(
  herkosd: HerkosdProcess,
  source: VmSource,
  name?: string,
): Promise<StartedPod> {
  let id = '';
  const logDirectory = join(herkosd.directory, 'logs', name ?? 'pod');
  const config = sandboxConfig(name === undefined ? {} : { name, logDirectory });
  const ms = await timed(async () => {
    ({ podSandboxId: id } = await herkosd.client.runtime('runPodSandbox', { config }));
  });
  const facts = await factsOf(herkosd, id);
  if (facts.vm.source !== source)
    throw new Error(`the pod's VM came from '${facts.vm.source}', not from '${source}' as the benchmark needs`);
  return { id, ms, phases: facts.timings, shape: facts.vm.shape };
}

export async function removePod(herkosd: HerkosdProcess, podSandboxId: string): Promise<void> {
  await herkosd.client.runtime('stopPodSandbox', { podSandboxId });
  await herkosd.client.runtime('removePodSandbox', { podSandboxId });
}

/** A pod that is started, timed and removed. */
export async function onePod(herkosd: HerkosdProcess, source: VmSource): Promise<StartedPod> {
  const pod = await startPod(herkosd, source);
  await removePod(herkosd, pod.id);
  return pod;
}

/** How long a template may take to be built, and a pool to fill, before the first pod is measured. */
const warmUpTimeoutMs = 180_000;

/**
 * Makes pods until one came from `source`: the first pod of a daemon writes the built-in network and makes
 * its bridge, and may come before there is a template or a pool. @returns the shape of its machine
 */
export async function warmUp(herkosd: HerkosdProcess, source: VmSource): Promise<VmShape> {
  const until = performance.now() + warmUpTimeoutMs;
  for (;;) {
    const { podSandboxId } = await herkosd.client.runtime('runPodSandbox', { config: sandboxConfig() });
    const { vm } = await factsOf(herkosd, podSandboxId);
    await removePod(herkosd, podSandboxId);
    if (vm.source === source) return vm.shape;
    if (performance.now() > until)
      throw new Error(`no pod got its VM from '${source}'; they come from '${vm.source}'`);
    await delay(warmUpPauseMs);
  }
}

/** `count` pods at once: first call to last READY. */
export async function manyPods(
  herkosd: HerkosdProcess,
  source: VmSource,
  count: number,
): Promise<{ readonly pods: StartedPod[]; readonly ms: number }> {
  // The clock stops with the last answer: what is asked about each pod afterwards is not part of it.
  const began = performance.now();
  let last = began;
  const ids = await Promise.all(
    Array.from({ length: count }, async () => {
      const { podSandboxId } = await herkosd.client.runtime('runPodSandbox', { config: sandboxConfig() });
      last = Math.max(last, performance.now());
      return podSandboxId;
    }),
  );
  const pods: StartedPod[] = [];
  for (const id of ids) {
    const { timings, vm } = await factsOf(herkosd, id);
    if (vm.source !== source) throw new Error(`a pod's VM came from '${vm.source}', not from '${source}'`);
    pods.push({ id, ms: totalOf(timings), phases: timings, shape: vm.shape });
  }
  return { pods, ms: last - began };
}

/** The bar of the sample that is the median (the lower of two). */
export function medianBar(label: string, pods: readonly StartedPod[]): PhaseBar {
  const sorted = [...pods].sort((a, b) => a.ms - b.ms);
  return { label, phases: sorted[Math.floor((sorted.length - 1) / 2)]?.phases ?? [] };
}

function totalOf(phases: readonly Phase[]): number {
  return phases.find(({ phase }) => phase === 'total')?.ms ?? Number.NaN;
}

async function factsOf(herkosd: HerkosdProcess, podSandboxId: string): Promise<PodFacts> {
  const { info } = await herkosd.client.runtime('podSandboxStatus', { podSandboxId, verbose: true });
  return JSON.parse(info['info'] ?? '{}') as PodFacts;
}
