import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Context } from '../../base/context.js';
import { background, sleep, throwIfDone, underDeadline } from '../../base/context.js';
import { HerkosError, isErrno, messageOf, wrap } from '../../base/errors.js';
import { isId } from '../../base/ids.js';
import { once } from '../../base/once.js';
import { withRollback } from '../../base/rollback.js';
import type { CgroupFactory, CgroupLimits, ProcessCgroup } from '../../vm/ports.js';
import type { CgroupFs } from './cgroup-fs.js';
import { systemCgroupFs } from './cgroup-fs.js';
import type { Hierarchy } from './hierarchies.js';
import { findHierarchies } from './hierarchies.js';
import { limitsV1, limitsV2 } from './limits.js';
import type { LimitWrite } from './limits.js';
import { parentDirectory } from './parent.js';

export interface CgroupSettings {
  /** Used where a pod names no parent. */
  readonly defaultParent: string;
}

export const cgroupDefaults = { defaultParent: '/herkos' } as const satisfies CgroupSettings;

const undoTimeoutMs = 5_000;
/** v1 has no event for "the last process has gone"; killed processes go within milliseconds. */
const emptyCheckMs = 5;
/** The controllers of v2 that limits need. */
const controllersV2 = ['cpu', 'memory', 'pids'];

/**
 * Host cgroups by their directories, whichever versions the host has. The directories of systemd's
 * slices are made by the kubelet; ours is a plain cgroup below them. systemd does not remove it while it is
 * not empty, but may switch off controllers in the slice that no unit needs, and our limits go with them:
 * each change of limits looks after that again.
 */
export class HostCgroups implements CgroupFactory {
  readonly #settings: CgroupSettings;
  readonly #fs: CgroupFs;
  readonly #hierarchies: () => Promise<readonly Hierarchy[]>;

  constructor(
    settings: CgroupSettings,
    fs: CgroupFs = systemCgroupFs,
    mountinfo: () => Promise<string> = () => readFile('/proc/self/mountinfo', 'utf8'),
  ) {
    this.#settings = settings;
    this.#fs = fs;
    this.#hierarchies = once(() => mountinfo().then(findHierarchies));
  }

  async create(ctx: Context, parent: string, id: string, limits: CgroupLimits): Promise<ProcessCgroup> {
    const below = this.#below(parent, id);
    const hierarchies = await this.#hierarchies();
    return withRollback(async (undo) => {
      undo.push('remove the cgroup', () =>
        underDeadline(background(), undoTimeoutMs, 'removing the cgroup', (step) =>
          this.deleteGone(step, parent, id),
        ),
      );
      for (const hierarchy of hierarchies) {
        throwIfDone(ctx);
        try {
          await this.#fs.makeDirectory(join(hierarchy.mountpoint, below));
          if (hierarchy.version === 2) await this.#limitV2(hierarchy, hierarchies, below, limits);
          else await this.#createV1(hierarchy, below, limits);
        } catch (error) {
          throw wrap(error, `cgroup ${join(hierarchy.mountpoint, below)}`);
        }
      }
      return {
        procsFiles: hierarchies.map(({ mountpoint }) => join(mountpoint, below, 'cgroup.procs')),
      };
    });
  }

  async setLimits(ctx: Context, parent: string, id: string, limits: CgroupLimits): Promise<void> {
    const below = this.#below(parent, id);
    const hierarchies = await this.#hierarchies();
    for (const hierarchy of hierarchies) {
      throwIfDone(ctx);
      const directory = join(hierarchy.mountpoint, below);
      try {
        if (hierarchy.version === 2) await this.#limitV2(hierarchy, hierarchies, below, limits);
        else await this.#limitV1(hierarchy, below, limits);
      } catch (error) {
        throw wrap(error, `cgroup ${directory}`);
      }
    }
  }

  async enter(ctx: Context, cgroup: ProcessCgroup, pid: number): Promise<void> {
    for (const file of cgroup.procsFiles) {
      throwIfDone(ctx);
      await this.#fs.write(file, String(pid));
    }
  }

  async deleteGone(ctx: Context, parent: string, id: string): Promise<void> {
    const below = this.#below(parent, id);
    for (const { mountpoint } of await this.#hierarchies()) {
      const directory = join(mountpoint, below);
      for (;;) {
        try {
          await this.#fs.removeDirectory(directory);
          break;
        } catch (error) {
          if (!isErrno(error, 'EBUSY') && !isErrno(error, 'ENOTEMPTY'))
            throw new HerkosError('Internal', `cannot remove cgroup ${directory}: ${messageOf(error)}`, {
              cause: error,
            });
        }
        await this.#killInside(directory);
        await sleep(ctx, emptyCheckMs);
      }
    }
  }

  #below(parent: string, id: string): string {
    if (!isId(id)) throw new HerkosError('InvalidArgument', `'${id}' is not a VM id`);
    return `${parentDirectory(parent === '' ? this.#settings.defaultParent : parent)}/herkos-${id}`;
  }

  async #createV1(hierarchy: Hierarchy, below: string, limits: CgroupLimits): Promise<void> {
    if (hierarchy.controllers.has('cpuset')) await this.#inheritCpuset(hierarchy.mountpoint, below);
    await this.#limitV1(hierarchy, below, limits);
  }

  async #limitV1({ mountpoint, controllers }: Hierarchy, below: string, limits: CgroupLimits): Promise<void> {
    await this.#limit(join(mountpoint, below), limitsV1(limits), (controller) => controllers.has(controller));
  }

  async #limitV2(
    { mountpoint }: Hierarchy,
    all: readonly Hierarchy[],
    below: string,
    limits: CgroupLimits,
  ): Promise<void> {
    const directory = join(mountpoint, below);
    const offered = await this.#words(join(mountpoint, 'cgroup.controllers'));
    const wanted = controllersV2.filter((name) => offered.includes(name));
    await this.#passDown(mountpoint, below, wanted);
    const here = await this.#words(join(directory, 'cgroup.controllers'));
    const absent = wanted.filter((name) => !here.includes(name));
    if (absent.length > 0)
      throw new HerkosError(
        'FailedPrecondition',
        `the host has the controllers ${absent.join(', ')}, but they do not get down here; see cgroup.subtree_control of the cgroups above`,
      );
    const hereOnly = (controller: string): boolean =>
      wanted.includes(controller) && !all.some(({ controllers }) => controllers.has(controller));
    await this.#limit(directory, limitsV2(limits), hereOnly);
  }

  /** From the top: each level must pass a controller on before the next one has it. */
  async #passDown(mountpoint: string, below: string, wanted: readonly string[]): Promise<void> {
    for (const level of levelsAbove(below)) {
      const file = join(mountpoint, level, 'cgroup.subtree_control');
      const enabled = await this.#words(file);
      const missing = wanted.filter((name) => !enabled.includes(name));
      if (missing.length > 0) await this.#fs.write(file, missing.map((name) => `+${name}`).join(' '));
    }
  }

  async #words(path: string): Promise<string[]> {
    return (await this.#fs.read(path))?.trim().split(/\s+/) ?? [];
  }

  /** A new v1 cpuset is empty, and no process can enter it before it has processors and memory nodes. */
  async #inheritCpuset(mountpoint: string, below: string): Promise<void> {
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      let inherited = '';
      for (const level of [...levelsAbove(below), below]) {
        const path = join(mountpoint, level, file);
        const own = (await this.#fs.read(path))?.trim() ?? '';
        if (own === '' && inherited !== '') await this.#fs.write(path, inherited);
        else inherited = own;
      }
    }
  }

  async #limit(
    directory: string,
    writes: readonly LimitWrite[],
    isHere: (controller: string) => boolean,
  ): Promise<void> {
    for (const { controller, file, value } of writes)
      if (isHere(controller)) await this.#fs.write(join(directory, file), value);
  }

  async #killInside(directory: string): Promise<void> {
    try {
      await this.#fs.write(join(directory, 'cgroup.kill'), '1');
      return;
    } catch {
      // v1, or a kernel before 5.14: one process at a time.
    }
    const pids = (await this.#fs.read(join(directory, 'cgroup.procs')))?.split('\n') ?? [];
    // 0 is how a process outside our pid namespace shows, 1 can only be a mistake.
    for (const pid of pids.map(Number)) if (pid > 1) this.#fs.kill(pid);
  }
}

/** The directories from the root of the hierarchy to the parent of `below`: '', '/a', '/a/b'. */
function levelsAbove(below: string): string[] {
  const levels: string[] = [];
  for (let level = dirname(below); level !== '/'; level = dirname(level)) levels.unshift(level);
  return ['', ...levels];
}
