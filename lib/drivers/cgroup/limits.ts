import type { CgroupLimits } from '../../vm/ports.js';

export interface LimitWrite {
  readonly controller: string;
  readonly file: string;
  readonly value: string;
}

const cpuPeriodDefaultUs = 100_000;
/** What the kernel gives a new cgroup. */
const sharesDefault = 1024;
const weightDefault = 100;

/** What to write for `limits` in cgroup v1 (kernel Documentation/admin-guide/cgroup-v1). */
export function limitsV1(limits: CgroupLimits): LimitWrite[] {
  const { memoryBytesMax, cpuShares, cpuQuotaUs, cpuPeriodUs, pidsMax } = limits;
  return [
    ...one('memory', 'memory.limit_in_bytes', memoryBytesMax),
    ...one('cpu', 'cpu.shares', cpuShares === 'default' ? sharesDefault : cpuShares),
    ...one('cpu', 'cpu.cfs_period_us', cpuPeriodUs),
    ...one('cpu', 'cpu.cfs_quota_us', cpuQuotaUs),
    ...one('pids', 'pids.max', pidsMax),
  ];
}

/** The same in v2 (Documentation/admin-guide/cgroup-v2.rst). */
export function limitsV2(limits: CgroupLimits): LimitWrite[] {
  const { memoryBytesMax, cpuShares, cpuQuotaUs, cpuPeriodUs, pidsMax } = limits;
  const period = cpuPeriodUs ?? cpuPeriodDefaultUs;
  const quota = cpuQuotaUs === undefined || cpuQuotaUs < 0 ? 'max' : String(cpuQuotaUs);
  return [
    ...one('memory', 'memory.max', memoryBytesMax),
    ...one('cpu', 'cpu.weight', cpuShares === undefined ? undefined : weightOf(cpuShares)),
    ...(cpuQuotaUs === undefined && cpuPeriodUs === undefined
      ? []
      : [{ controller: 'cpu', file: 'cpu.max', value: `${quota} ${String(period)}` }]),
    ...one('pids', 'pids.max', pidsMax),
  ];
}

/** Shares 2 … 262144 to weight 1 … 10000, the mapping that Kubernetes uses (KEP-2254). */
export function weightOf(shares: number | 'default'): number {
  if (shares === 'default') return weightDefault;
  const bounded = Math.min(Math.max(shares, 2), 262_144);
  return 1 + Math.floor(((bounded - 2) * 9999) / 262_142);
}

function one(controller: string, file: string, value: number | undefined): LimitWrite[] {
  return value === undefined ? [] : [{ controller, file, value: String(value) }];
}
