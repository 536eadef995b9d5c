import { HerkosError } from '../../base/errors.js';
import type { LinuxResources } from '../../model/resources.js';
import type { OciResources } from '../../wire/ocispec/types.js';

const unifiedKeyPattern = /^[a-z]+(\.[a-z0-9_-]+)+$/;

/**
 * A container's limits as the guest's cgroup v2 shall keep them. CPU and memory node sets are left out:
 * they number the *host's* CPUs, which the guest does not have.
 * @throws Unimplemented for huge pages, InvalidArgument for a cgroup file name that is none
 */
export function resourcesOf(resources: LinuxResources, privileged: boolean): OciResources {
  const { cpuShares, cpuQuotaUs, cpuPeriodUs, memoryLimitBytes, memorySwapLimitBytes, unified } = resources;
  // The kubelet sends a zero for each page size of the node; only a positive limit asks for something.
  const huge = resources.hugepageLimits?.find((limit) => limit.limitBytes > 0);
  if (huge !== undefined)
    throw new HerkosError(
      'Unimplemented',
      `huge pages (${huge.pageSize}) cannot be given to a container yet`,
    );
  const cpu = {
    ...positive('shares', cpuShares),
    ...(cpuQuotaUs === undefined || cpuQuotaUs === 0 ? {} : { quota: cpuQuotaUs }),
    ...positive('period', cpuPeriodUs),
  };
  const memory = {
    ...positive('limit', memoryLimitBytes),
    ...swapOf(memoryLimitBytes, memorySwapLimitBytes),
  };
  return {
    // The runtime adds the harmless devices (null, zero, full, random, urandom, tty, ptys) to an empty list.
    devices: [{ allow: privileged, access: 'rwm' }],
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    ...(unified === undefined || Object.keys(unified).length === 0 ? {} : { unified: checkUnified(unified) }),
  };
}

function positive<K extends string>(key: K, value: number | undefined): Partial<Record<K, number>> {
  return value === undefined || value <= 0 ? {} : ({ [key]: value } as Record<K, number>);
}

/** A swap limit means memory and swap together, so it says nothing without a memory limit of at most its size. */
function swapOf(memory: number | undefined, swap: number | undefined): { swap?: number } {
  if (swap === undefined || swap === 0 || memory === undefined || memory <= 0) return {};
  if (swap > 0 && swap < memory)
    throw new HerkosError(
      'InvalidArgument',
      `memory_swap_limit_in_bytes ${String(swap)} is below memory_limit_in_bytes ${String(memory)}; it counts both together`,
    );
  return { swap };
}

function checkUnified(unified: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  for (const key of Object.keys(unified))
    if (!unifiedKeyPattern.test(key))
      throw new HerkosError('InvalidArgument', `'${key}' is not the name of a cgroup v2 file`);
  return unified;
}
