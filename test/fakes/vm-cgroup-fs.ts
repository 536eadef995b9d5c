/** cgroup directories in memory, with the rules of the kernel that matter. */
import { dirname, join } from 'node:path';

import type { CgroupFs } from '../../lib/drivers/cgroup/cgroup-fs.js';

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

export interface FakeHierarchy {
  readonly mountpoint: string;
  readonly version: 1 | 2;
  readonly controllers: readonly string[];
}

const filesOf: Readonly<Record<string, readonly string[]>> = {
  'v1 memory': ['memory.limit_in_bytes'],
  'v1 cpu': ['cpu.shares', 'cpu.cfs_period_us', 'cpu.cfs_quota_us'],
  'v1 pids': ['pids.max'],
  'v1 cpuset': ['cpuset.cpus', 'cpuset.mems'],
  'v2 memory': ['memory.max'],
  'v2 cpu': ['cpu.max', 'cpu.weight'],
  'v2 pids': ['pids.max'],
};

export class FakeCgroupFs implements CgroupFs {
  readonly files = new Map<string, string>();
  readonly directories = new Set<string>();
  /** By directory. */
  readonly processes = new Map<string, Set<number>>();
  readonly killed: number[] = [];
  /** Kernel 5.14 and later. */
  hasKillFile = true;
  readonly #hierarchies: readonly FakeHierarchy[];

  constructor(hierarchies: readonly FakeHierarchy[]) {
    this.#hierarchies = hierarchies;
    for (const { mountpoint, version, controllers } of hierarchies) {
      this.#appear(mountpoint);
      if (version === 2) this.files.set(join(mountpoint, 'cgroup.controllers'), controllers.join(' '));
      if (controllers.includes('cpuset') && version === 1) {
        this.files.set(join(mountpoint, 'cpuset.cpus'), '0-1');
        this.files.set(join(mountpoint, 'cpuset.mems'), '0');
      }
    }
  }

  makeDirectory(path: string): Promise<void> {
    const missing: string[] = [];
    for (let level = path; !this.directories.has(level); level = dirname(level)) {
      if (level === '/') return Promise.reject(failure('ENOENT', path));
      missing.unshift(level);
    }
    for (const level of missing) this.#appear(level);
    return Promise.resolve();
  }

  removeDirectory(path: string): Promise<void> {
    if ((this.processes.get(path)?.size ?? 0) > 0) return Promise.reject(failure('EBUSY', path));
    for (const file of [...this.files.keys()]) if (dirname(file) === path) this.files.delete(file);
    this.directories.delete(path);
    return Promise.resolve();
  }

  read(path: string): Promise<string | undefined> {
    if (path.endsWith('/cgroup.procs'))
      return Promise.resolve([...(this.processes.get(dirname(path)) ?? [])].join('\n'));
    return Promise.resolve(this.files.get(path));
  }

  write(path: string, value: string): Promise<void> {
    if (!this.files.has(path)) return Promise.reject(failure('ENOENT', path));
    if (path.endsWith('/cgroup.kill'))
      for (const pid of this.processes.get(dirname(path)) ?? []) this.kill(pid);
    if (path.endsWith('/cgroup.subtree_control')) this.#passOn(path, value);
    else this.files.set(path, value);
    return Promise.resolve();
  }

  kill(pid: number): void {
    this.killed.push(pid);
    for (const inside of this.processes.values()) inside.delete(pid);
  }

  #appear(path: string): void {
    this.directories.add(path);
    const hierarchy = this.#hierarchies.find(({ mountpoint }) => `${path}/`.startsWith(`${mountpoint}/`));
    if (hierarchy === undefined) return;
    if (hierarchy.version === 1) {
      for (const name of hierarchy.controllers) this.#controllerFiles(path, `v1 ${name}`);
      return;
    }
    for (const file of ['cgroup.subtree_control', 'cgroup.controllers']) this.files.set(join(path, file), '');
    if (this.hasKillFile) this.files.set(join(path, 'cgroup.kill'), '');
    const passed = this.files.get(join(dirname(path), 'cgroup.subtree_control')) ?? '';
    for (const name of passed.split(' ')) this.#controllerFiles(path, `v2 ${name}`);
  }

  /** Children that exist already get the files too, as in the kernel. */
  #passOn(path: string, value: string): void {
    const names = value.split(' ').map((word) => word.replace('+', ''));
    const before = this.files.get(path) ?? '';
    this.files.set(path, [before, ...names].filter((word) => word !== '').join(' '));
    for (const child of this.directories)
      if (dirname(child) === dirname(path))
        for (const name of names) this.#controllerFiles(child, `v2 ${name}`);
  }

  #controllerFiles(path: string, kind: string): void {
    for (const file of filesOf[kind] ?? []) this.files.set(join(path, file), '');
  }
}
