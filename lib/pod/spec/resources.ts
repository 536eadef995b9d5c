import { HerkosError } from '../../base/errors.js';
import type { LinuxResources } from '../../model/resources.js';
import type { OciResources } from '../../wire/ocispec/types.js';

const unifiedKeyPattern = /^[a-z]+(\.[a-z0-9_-]+)+$/;

/** Limits without the devices, which are given once and for all. */
export type OciLimits = Omit<OciResources, 'devices'>;

/** A container's resources as it is created with them. @throws as `limitsOf` */
export function resourcesOf(resources: LinuxResources, privileged: boolean): OciResources {
  return {
    // The runtime adds the harmless devices (null, zero, full, random, urandom, tty, ptys) to an empty list.
    devices: [{ allow: privileged, access: 'rwm' }],
    ...limitsOf(resources),
  };
}

/**
 * A container's limits as the guest's cgroup v2 shall keep them. CPU and memory node sets are left out:
 * they number the *host's* CPUs, which the guest does not have.
 * @throws Unimplemented for huge pages, InvalidArgument for a cgroup file name that is none
 */
export function limitsOf(resources: LinuxResources): OciLimits {
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
    ...named('quota', cpuQuotaUs),
    ...positive('period', cpuPeriodUs),
  };
  const memory = {
    ...named('limit', memoryLimitBytes),
    ...swapOf(memoryLimitBytes, memorySwapLimitBytes),
  };
  return {
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    ...(unified === undefined || Object.keys(unified).length === 0 ? {} : { unified: checkUnified(unified) }),
  };
}

/**
 * Takes a container that has the limits `tried` (or not) back to those of `before`: what only `tried` has
 * is set to the kernel's default. Files of `unified` that only `tried` names keep their value.
 */
export function limitsBack(before: LinuxResources, tried: LinuxResources): OciLimits {
  const [limits, others] = [limitsOf(before), limitsOf(tried)];
  const memory = { ...defaultsOf(others.memory, memoryDefaults), ...limits.memory };
  const cpu = { ...defaultsOf(others.cpu, cpuDefaults), ...limits.cpu };
  return {
    ...limits,
    ...(Object.keys(memory).length === 0 ? {} : { memory }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
  };
}

const memoryDefaults = { limit: -1, swap: -1 };
const cpuDefaults = { shares: 1024, quota: -1, period: 100_000 };

/** Of the defaults, those whose names `limits` has. */
function defaultsOf<T extends Readonly<Record<string, number>>>(
  limits: Partial<T> | undefined,
  defaults: T,
): Partial<T> {
  return Object.fromEntries(
    Object.entries(defaults).filter(([name]) => limits?.[name] !== undefined),
  ) as Partial<T>;
}

/** Negative: none, which is a value too. */
function named<K extends string>(key: K, value: number | undefined): Partial<Record<K, number>> {
  return value === undefined || value === 0 ? {} : ({ [key]: value } as Record<K, number>);
}

function positive<K extends string>(key: K, value: number | undefined): Partial<Record<K, number>> {
  return value === undefined || value <= 0 ? {} : ({ [key]: value } as Record<K, number>);
}

/** A swap limit means memory and swap together, so it says nothing without a memory limit of at most its size. */
function swapOf(memory = 0, swap = 0): { swap?: number } {
  if (swap === 0 || memory === 0 || (memory < 0 && swap > 0)) return {};
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
