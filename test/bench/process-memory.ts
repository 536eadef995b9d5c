/** Memory of the processes behind pods; pages that they share are split. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { readStat } from '../../lib/base/processes.js';
import { processDetails } from '../../lib/vm/process-facts.js';
import type { HerkosdProcess } from '../tools/herkosd-process.js';
import { spread } from './bench.js';

const bytesPerMb = 1e6;

/** In MB of a million bytes. */
export interface MemoryUse {
  readonly pss: number;
  /** Pages that no other process maps. */
  readonly private: number;
  /** This process's part of the pages that others map too: pss - private. */
  readonly shared: number;
}

/** Undefined when the process has ended. */
async function memoryOf(pid: number): Promise<MemoryUse | undefined> {
  const stat = await readStat(pid);
  const details = stat === undefined ? undefined : await processDetails(pid, stat.startTicks);
  if (details === undefined) return undefined;
  const pss = details.pssBytes / bytesPerMb;
  const own = details.memory.privateBytes / bytesPerMb;
  return { pss, private: own, shared: pss - own };
}

export async function memoryOfAll(pids: readonly number[]): Promise<MemoryUse[]> {
  const found = await Promise.all(pids.map(memoryOf));
  return found.filter((use) => use !== undefined);
}

/** What all of them use together, for each of `podCount` pods. */
export function perPod(uses: readonly MemoryUse[], podCount: number): MemoryUse {
  const mean = (pick: (use: MemoryUse) => number): number =>
    uses.reduce((sum, use) => sum + pick(use), 0) / podCount;
  return {
    pss: mean((use) => use.pss),
    private: mean((use) => use.private),
    shared: mean((use) => use.shared),
  };
}

export function shownUse({ pss, private: own, shared }: MemoryUse): string {
  return `${pss.toFixed(1)} MB (${own.toFixed(1)} private, ${shared.toFixed(1)} shared)`;
}

/** Every process of the daemon's pods: QEMU by its name, helpers by the cgroup that a pod's processes share. */
export async function podProcesses(herkosd: HerkosdProcess): Promise<number[]> {
  const pids = new Set<number>();
  for (const line of await herkosd.leftovers()) {
    const pid = /^process (\d+)/.exec(line)?.[1];
    if (pid !== undefined) pids.add(Number(pid));
    const cgroup = /^cgroup (.*)$/.exec(line)?.[1];
    if (cgroup === undefined) continue;
    const members = await readFile(join(cgroup, 'cgroup.procs'), 'utf8').catch(() => '');
    for (const member of members.split('\n')) if (member !== '') pids.add(Number(member));
  }
  pids.delete(herkosd.pid ?? 0);
  return [...pids];
}

/** The sample with the median of the total. */
export function medianUse(uses: readonly MemoryUse[]): MemoryUse {
  const { median } = spread(uses.map(({ pss }) => pss));
  const sorted = [...uses].sort((a, b) => Math.abs(a.pss - median) - Math.abs(b.pss - median));
  return sorted[0] ?? { pss: Number.NaN, private: Number.NaN, shared: Number.NaN };
}

/** Resident memory of the daemon with its threads and the helpers beside it, MiB (proc(5), VmRSS). */
export async function residentMib(daemon: number | undefined): Promise<number> {
  const helpers = await childrenOf(daemon).catch(() => []);
  const [own = Number.NaN, ...others] = await Promise.all([daemon, ...helpers].map(residentOf));
  // A helper that has just ended has no memory.
  return others.filter((one) => !Number.isNaN(one)).reduce((sum, one) => sum + one, own);
}

async function residentOf(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${String(pid)}/status`, 'utf8').catch(() => '');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}

async function childrenOf(parent: number | undefined): Promise<number[]> {
  const threads = `/proc/${String(parent)}/task`;
  const lists = await Promise.all(
    (await readdir(threads)).map(async (thread) => readFile(join(threads, thread, 'children'), 'utf8')),
  );
  return lists
    .join(' ')
    .split(' ')
    .filter((word) => word !== '')
    .map(Number);
}
