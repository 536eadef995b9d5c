/** Limits as the kubelet sends them; undefined means "not set" (cri-api LinuxContainerResources). */
export interface LinuxResources {
  readonly cpuShares?: number;
  /** Negative, as for memory: no limit, said in so many words to take one away. */
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
  readonly memoryLimitBytes?: number;
  /** Memory and swap together, as in cgroup v1. */
  readonly memorySwapLimitBytes?: number;
  readonly oomScoreAdj?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly hugepageLimits?: readonly { readonly pageSize: string; readonly limitBytes: number }[];
  /** cgroup v2 file name to value, such as `memory.high`. */
  readonly unified?: Readonly<Record<string, string>>;
}

/** What a pod's machine must have room for. */
export interface PodDemand {
  /** Sum of the container limits, as the kubelet says. */
  readonly resources?: LinuxResources;
  /** The RuntimeClass overhead. */
  readonly overhead?: LinuxResources;
  readonly containers: readonly ContainerDemand[];
}

export interface ContainerDemand {
  readonly name: string;
  readonly resources: LinuxResources;
}

/** The kernel's own, and the kubelet's. */
const cpuPeriodDefaultUs = 100_000;

/** Processors that the quota can fill, in parts too; undefined without a limit. */
export function cpusOf({ cpuQuotaUs, cpuPeriodUs }: LinuxResources): number | undefined {
  if (cpuQuotaUs === undefined || cpuQuotaUs <= 0) return undefined;
  return cpuQuotaUs / (cpuPeriodUs === undefined || cpuPeriodUs <= 0 ? cpuPeriodDefaultUs : cpuPeriodUs);
}

/** Undefined without a limit. */
export function memoryBytesOf({ memoryLimitBytes }: LinuxResources): number | undefined {
  return memoryLimitBytes === undefined || memoryLimitBytes <= 0 ? undefined : memoryLimitBytes;
}

/**
 * Limits after a change that names only some of them. The OOM score belongs to the processes that were
 * started with it and stays as it was.
 */
export function changedResources(before: LinuxResources, change: LinuxResources): LinuxResources {
  const { oomScoreAdj: _started, unified, ...named } = change;
  return {
    ...before,
    ...keptSwap(before, change),
    ...named,
    ...(unified === undefined ? {} : { unified: { ...before.unified, ...unified } }),
  };
}

/**
 * The swap limit counts memory too, so it moves with it: the swap itself stays what it was. Without a limit on
 * memory there can be none on both.
 */
function keptSwap(before: LinuxResources, change: LinuxResources): LinuxResources {
  const [memory, swap] = [memoryBytesOf(before), before.memorySwapLimitBytes ?? 0];
  const next = memoryBytesOf(change);
  if (swap > 0 && (change.memoryLimitBytes ?? 0) < 0) return { memorySwapLimitBytes: -1 };
  if (memory === undefined || next === undefined || swap <= 0) return {};
  return { memorySwapLimitBytes: Math.max(next, swap + next - memory) };
}
