/** Limits as the kubelet sends them; undefined means "not set" (cri-api LinuxContainerResources). */
export interface LinuxResources {
  readonly cpuShares?: number;
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
