/** Which cgroup hierarchies this host has, from /proc/self/mountinfo (proc(5), cgroups(7)). */
import { HerkosError } from '../../base/errors.js';

export interface Hierarchy {
  readonly version: 1 | 2;
  readonly mountpoint: string;
  /** v1: what is mounted here, `name=systemd` included; v2: empty, `cgroup.controllers` tells. */
  readonly controllers: ReadonlySet<string>;
}

/** Controllers of v1 that a VM's process is put under; devices and freezer have nothing to limit here. */
const usedV1: ReadonlySet<string> = new Set(['memory', 'cpu', 'cpuacct', 'pids', 'blkio', 'cpuset']);

/**
 * The hierarchies a process must join: on a hybrid host the v1 ones and the v2 one beside them.
 * @throws HerkosError `FailedPrecondition` when there is none
 */
export function findHierarchies(mountinfo: string): Hierarchy[] {
  const found = new Map<string, Hierarchy>();
  for (const line of mountinfo.split('\n')) {
    const hierarchy = parseLine(line);
    if (hierarchy === undefined) continue;
    // A second mount of the same hierarchy, as containers have, adds nothing.
    const key = hierarchy.version === 2 ? 'v2' : [...hierarchy.controllers].sort().join(',');
    if (!found.has(key)) found.set(key, hierarchy);
  }
  const hierarchies = [...found.values()].filter(
    ({ version, controllers }) => version === 2 || [...controllers].some((name) => usedV1.has(name)),
  );
  if (hierarchies.length === 0)
    throw new HerkosError(
      'FailedPrecondition',
      'this host has no cgroup hierarchy mounted; mount cgroup2 at /sys/fs/cgroup',
      { reason: 'CGROUP_MISSING' },
    );
  return hierarchies;
}

function parseLine(line: string): Hierarchy | undefined {
  // 36 35 98:0 /root /mountpoint options… optional… - type source super-options
  const [before, after] = line.split(' - ');
  const mountpoint = before?.split(' ')[4];
  const [type, , superOptions] = after?.split(' ') ?? [];
  if (mountpoint === undefined || superOptions === undefined) return undefined;
  if (type === 'cgroup2') return { version: 2, mountpoint: unescape(mountpoint), controllers: new Set() };
  if (type !== 'cgroup') return undefined;
  const controllers = superOptions.split(',').filter((word) => word !== 'rw' && word !== 'ro');
  return { version: 1, mountpoint: unescape(mountpoint), controllers: new Set(controllers) };
}

function unescape(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
