/** Sizes of VMs that the configuration asks for and this node cannot give. */
import { HerkosError } from '../../lib/base/errors.js';
import type { Config } from '../../lib/config/load.js';
import type { SizingSettings } from '../../lib/vm/settings.js';
import { memoryMibFloor, memoryStepMib } from '../../lib/vm/settings.js';
import { vmSettings } from './settings.js';

/**
 * A pod without limits is given these sizes; when the node cannot give them, better nobody finds out pod by pod.
 * @throws HerkosError `InvalidArgument` that names each key and what to write
 */
export function checkSizes(config: Config, sizing: SizingSettings = vmSettings(config).sizing): void {
  const problems = [...memoryProblems(sizing), ...vcpuProblems(sizing)];
  if (problems.length === 0) return;
  throw new HerkosError(
    'InvalidArgument',
    `the configuration does not fit this node: ${problems.join('; ')}`,
  );
}

function memoryProblems({ memoryMibDefault, guestOverheadMib, memoryMibMax }: SizingSettings): string[] {
  // A machine's size is rounded up.
  const mostMib = Math.floor(memoryMibMax / memoryStepMib) * memoryStepMib;
  if (mostMib < memoryMibFloor)
    return [
      `vm.memory: this node can give one VM ${mibOf(mostMib)}, and a VM needs ${mibOf(memoryMibFloor)} at least; use a node with more memory`,
    ];
  const problems = [];
  if (memoryMibDefault < memoryMibFloor)
    problems.push(
      `vm.memory: a VM of ${mibOf(memoryMibDefault)} cannot start a container; write "${mibOf(memoryMibFloor)}" at least`,
    );
  for (const [key, mib] of [
    ['vm.memory', memoryMibDefault],
    ['vm.memory_overhead', guestOverheadMib],
  ] as const)
    if (mib > mostMib)
      problems.push(
        `${key}: ${mibOf(mib)} is more than this node can give one VM; write "${mibOf(mostMib)}" at most`,
      );
  return problems;
}

function vcpuProblems({ vcpusDefault, vcpusMax }: SizingSettings): string[] {
  if (vcpusDefault <= vcpusMax) return [];
  return [
    `vm.vcpus: ${String(vcpusDefault)} is more than the processors that this node can give one VM; write ${String(vcpusMax)} at most`,
  ];
}

function mibOf(mib: number): string {
  return `${String(mib)}MiB`;
}
