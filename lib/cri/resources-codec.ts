import Long from 'long';

import type { LinuxResources } from '../model/resources.js';
import type { v1 } from './api.js';
import { integer, requiredText, stringMap } from './checks.js';

/** The kernel's range of oom_score_adj. */
const oomScoreAdjMax = 1000;

const unlimited = -1;

/**
 * CRI knows no "absent" here: zero and empty mean that a limit is not set, and so does "no limit" for a quota
 * or for memory. Of swap it is kept: there it differs from "not set".
 */
export function decodeResources(
  from: v1.LinuxContainerResources.$Properties | null | undefined,
  field: string,
): LinuxResources {
  if (from === null || from === undefined) return {};
  return {
    ...set('cpuShares', integer(from.cpuShares, `${field}.cpu_shares`, 0)),
    ...set('cpuQuotaUs', Math.max(0, limitOf(from.cpuQuota))),
    ...set('cpuPeriodUs', integer(from.cpuPeriod, `${field}.cpu_period`, 0)),
    ...set('memoryLimitBytes', Math.max(0, limitOf(from.memoryLimitInBytes))),
    ...set('memorySwapLimitBytes', limitOf(from.memorySwapLimitInBytes)),
    ...set(
      'oomScoreAdj',
      integer(from.oomScoreAdj, `${field}.oom_score_adj`, -oomScoreAdjMax, oomScoreAdjMax),
    ),
    ...set('cpusetCpus', from.cpusetCpus ?? ''),
    ...set('cpusetMems', from.cpusetMems ?? ''),
    ...decodeHugepages(from.hugepageLimits ?? [], `${field}.hugepage_limits`),
    ...(Object.keys(from.unified ?? {}).length === 0 ? {} : { unified: stringMap(from.unified) }),
  };
}

/** A change of limits; "no limit" takes one away, which is more than not naming it. */
export function decodeChange(from: v1.LinuxContainerResources.$Properties, field: string): LinuxResources {
  return {
    ...decodeResources(from, field),
    ...(limitOf(from.cpuQuota) < 0 ? { cpuQuotaUs: unlimited } : {}),
    ...(limitOf(from.memoryLimitInBytes) < 0 ? { memoryLimitBytes: unlimited } : {}),
  };
}

/** Exact for every value that was decoded here. */
export function encodeResources(from: LinuxResources): v1.LinuxContainerResources.$Properties {
  return {
    cpuShares: Long.fromNumber(from.cpuShares ?? 0),
    cpuQuota: Long.fromNumber(from.cpuQuotaUs ?? 0),
    cpuPeriod: Long.fromNumber(from.cpuPeriodUs ?? 0),
    memoryLimitInBytes: Long.fromNumber(from.memoryLimitBytes ?? 0),
    memorySwapLimitInBytes: Long.fromNumber(from.memorySwapLimitBytes ?? 0),
    oomScoreAdj: Long.fromNumber(from.oomScoreAdj ?? 0),
    cpusetCpus: from.cpusetCpus ?? '',
    cpusetMems: from.cpusetMems ?? '',
    hugepageLimits: (from.hugepageLimits ?? []).map(({ pageSize, limitBytes }) => ({
      pageSize,
      limit: Long.fromNumber(limitBytes, true),
    })),
    unified: stringMap(from.unified),
  };
}

/**
 * The kubelet says "no limit" as it finds it in the pod's cgroup: -1, or 2^63 less a page (cgroup v1). Of a pod
 * with a RuntimeClass it takes the overhead off that too.
 */
function limitOf(value: Long | number | null | undefined): number {
  const number = Number((value ?? 0).toString());
  return number < 0 || number > Number.MAX_SAFE_INTEGER ? unlimited : number;
}

function set<Name extends keyof LinuxResources, Value extends string | number>(
  name: Name,
  value: Value,
): Partial<Record<Name, Value>> {
  if (value === 0 || value === '') return {};
  // A computed key has a wider type than the name it is computed from.
  return { [name]: value } as Partial<Record<Name, Value>>;
}

function decodeHugepages(
  limits: readonly v1.HugepageLimit.$Properties[],
  field: string,
): Pick<LinuxResources, 'hugepageLimits'> {
  // The kubelet sends a zero for every page size of the node; only the others limit anything.
  const wanted = limits.map(({ pageSize, limit }) => ({
    pageSize: requiredText(pageSize, `${field}.page_size`),
    limitBytes: integer(limit, `${field}.limit`, 0),
  }));
  return wanted.length === 0 ? {} : { hugepageLimits: wanted };
}
