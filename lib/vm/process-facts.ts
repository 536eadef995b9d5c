/** A VM's process as /proc shows it to root (proc(5)). */
import { readFile } from 'node:fs/promises';

import { isErrno } from '../base/errors.js';
import { KIB } from '../base/units.js';

/** The kernel shows clock ticks in this unit to every program, whatever its own is (USER_HZ). */
const ticksPerSecond = 100;

export interface ProcessFacts {
  /** Unix time. */
  readonly startedAtMs: number;
  /** Each shared page divided by the number of those who share it. */
  readonly pssBytes: number;
}

export interface ProcessDetails extends ProcessFacts {
  readonly memory: {
    readonly residentBytes: number;
    /** The parts of `pssBytes`. */
    readonly pssAnonymousBytes: number;
    readonly pssFileBytes: number;
    readonly pssSharedMemoryBytes: number;
    /** Nobody else has it: what the node would get back. */
    readonly privateBytes: number;
    readonly sharedBytes: number;
    readonly swappedBytes: number;
  };
  readonly threads: number;
  readonly user: readonly number[];
  readonly group: readonly number[];
  readonly supplementaryGroups: readonly number[];
  readonly noNewPrivileges: boolean;
  readonly seccompFilters: number;
  /** `<controllers>:<path>` of each hierarchy. */
  readonly cgroups: readonly string[];
}

/** Undefined when exactly this process does not run any more. */
export async function processFacts(pid: number, startTicks: string): Promise<ProcessFacts | undefined> {
  return ifThere(async () => {
    const memory = await readSizes(pid, 'smaps_rollup');
    // Last: what was read before belongs to the process that is still there now.
    const startedAtMs = await startTime(pid, startTicks);
    return startedAtMs === undefined ? undefined : { startedAtMs, pssBytes: memory('Pss') };
  });
}

/** As `processFacts`, with everything else that an operator may ask. */
export async function processDetails(pid: number, startTicks: string): Promise<ProcessDetails | undefined> {
  return ifThere(async () => {
    const memory = await readSizes(pid, 'smaps_rollup');
    const status = await read(pid, 'status');
    const cgroup = await read(pid, 'cgroup');
    const startedAtMs = await startTime(pid, startTicks);
    if (startedAtMs === undefined) return undefined;
    const numbers = (field: string): number[] => {
      const text = new RegExp(`^${field}:(.*)$`, 'm').exec(status)?.[1]?.trim() ?? '';
      return text === '' ? [] : text.split(/\s+/).map(Number);
    };
    return {
      startedAtMs,
      pssBytes: memory('Pss'),
      memory: {
        residentBytes: memory('Rss'),
        pssAnonymousBytes: memory('Pss_Anon'),
        pssFileBytes: memory('Pss_File'),
        pssSharedMemoryBytes: memory('Pss_Shmem'),
        privateBytes: memory('Private_Clean') + memory('Private_Dirty'),
        sharedBytes: memory('Shared_Clean') + memory('Shared_Dirty'),
        swappedBytes: memory('Swap'),
      },
      threads: numbers('Threads')[0] ?? 0,
      user: numbers('Uid'),
      group: numbers('Gid'),
      supplementaryGroups: numbers('Groups'),
      noNewPrivileges: numbers('NoNewPrivs')[0] === 1,
      seccompFilters: numbers('Seccomp_filters')[0] ?? 0,
      cgroups: cgroup
        .trim()
        .split('\n')
        .map((line) => line.replace(/^\d+:/, '')),
    };
  });
}

/** Sizes of a file of lines like `Pss:  12 kB`, in bytes; 0 for what this kernel does not tell. */
async function readSizes(pid: number, file: string): Promise<(field: string) => number> {
  const text = await read(pid, file);
  return (field) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * KIB;
}

async function startTime(pid: number, startTicks: string): Promise<number | undefined> {
  const stat = await read(pid, 'stat');
  // The second field is the program's name in brackets and may hold anything, brackets too.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[19] !== startTicks) return undefined;
  const uptimeSeconds = Number((await readFile('/proc/uptime', 'utf8')).split(' ')[0]);
  return Math.round(Date.now() - (uptimeSeconds - Number(startTicks) / ticksPerSecond) * 1000);
}

async function read(pid: number, file: string): Promise<string> {
  return readFile(`/proc/${String(pid)}/${file}`, 'utf8');
}

/** A process may end between two reads. */
async function ifThere<T>(body: () => Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await body();
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ESRCH')) return undefined;
    throw error;
  }
}
