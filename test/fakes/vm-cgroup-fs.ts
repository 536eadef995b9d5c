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
  /** Controllers do not get below this, whatever is written; empty: they do everywhere. */
  barrier = '';
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
    this.files.set(join(path, 'cgroup.subtree_control'), '');
    if (this.hasKillFile) this.files.set(join(path, 'cgroup.kill'), '');
    this.#take(path, this.files.get(join(dirname(path), 'cgroup.subtree_control')) ?? '');
  }

  /** Children that exist already get the files too, or lose them, as in the kernel. */
  #passOn(path: string, value: string): void {
    const enabled = new Set((this.files.get(path) ?? '').split(' ').filter((word) => word !== ''));
    for (const word of value.split(' '))
      if (word.startsWith('+')) enabled.add(word.slice(1));
      else enabled.delete(word.slice(1));
    this.files.set(path, [...enabled].join(' '));
    for (const child of this.directories)
      if (dirname(child) === dirname(path)) this.#take(child, [...enabled].join(' '));
  }

  /** The controllers of a directory are those that its parent passes on. */
  #take(path: string, passed: string): void {
    if (dirname(path) === this.barrier) return;
    this.files.set(join(path, 'cgroup.controllers'), passed);
    const kinds = passed.split(' ').map((name) => `v2 ${name}`);
    for (const [kind, files] of Object.entries(filesOf))
      if (kind.startsWith('v2') && !kinds.includes(kind))
        for (const file of files) this.files.delete(join(path, file));
    for (const kind of kinds) this.#controllerFiles(path, kind);
  }

  #controllerFiles(path: string, kind: string): void {
    for (const file of filesOf[kind] ?? [])
      if (!this.files.has(join(path, file))) this.files.set(join(path, file), '');
  }
}
