import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Context } from '../../base/context.js';
import { isErrno } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { isMounted } from '../../base/mounts.js';
import type { MemoryFile } from '../../vm/ports.js';

/** Layers, disks, sockets and QEMU's own: far below this. */
const openFilesMax = 4096;

/** Where the program finds its guest's memory, whatever that was outside. */
export const jailMemoryPath = '/proc/self/fd/10';

export interface JailSpec {
  readonly uid: number;
  /** Supplementary groups: what it may read beside its own. */
  readonly groups: readonly number[];
  readonly netnsPath: string;
  readonly procsFiles: readonly string[];
  readonly deviceDirectory: string;
  /** Opened by root, as nobody else may follow it, and found at `jailMemoryPath`. */
  readonly memory?: JailMemory | undefined;
  /** Whether the kernel may back the process's own memory with huge pages. */
  readonly hugePages: boolean;
  /** Whether taking pages out of a file does nothing and seems to succeed (cmd/herkos-host/src/holes.rs). */
  readonly feignHoles: boolean;
  readonly program: string;
  readonly args: readonly string[];
}

export interface JailMemory extends MemoryFile {
  /** The program is not started when anybody could change the memory. */
  readonly mustBeSealed: boolean;
}

/**
 * The command that ends up as `program` in its jail: `herkos-host jail` joins the cgroups, sees to limits, gives
 * the process a /dev of its own, enters the pod's network namespace, drops every privilege and becomes the
 * program, so that the pid is its own from the start. No secrets, as everybody can read it in /proc.
 */
export function jailCommand(
  hostHelper: string,
  spec: JailSpec,
): { readonly program: string; readonly args: string[] } {
  return {
    program: hostHelper,
    args: [
      ...['jail', '--uid', String(spec.uid), '--groups', spec.groups.join(',')],
      ...['--netns', spec.netnsPath, '--devices', spec.deviceDirectory],
      ...['--open-files', String(openFilesMax), '--huge-pages', flag(spec.hugePages)],
      ...['--feign-holes', flag(spec.feignHoles)],
      ...spec.procsFiles.flatMap((file) => ['--procs', file]),
      ...memoryOptions(spec.memory),
      ...['--', spec.program, ...spec.args],
    ],
  };
}

function memoryOptions(memory: JailMemory | undefined): string[] {
  if (memory === undefined) return [];
  const { path, inode, mustBeSealed } = memory;
  return ['--memory', path, '--memory-inode', String(inode), '--memory-sealed', flag(mustBeSealed)];
}

function flag(value: boolean): string {
  return value ? '1' : '0';
}

/** Nothing of the daemon's environment goes to QEMU: proxies and tokens may be there. */
export const jailEnvironment = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin',
  LANG: 'C',
  // A heap for each thread would cost every VM megabytes, and QEMU's threads seldom allocate.
  MALLOC_ARENA_MAX: '1',
};

interface Node {
  readonly path: string;
  readonly major: number;
  readonly minor: number;
}

/** Linux's fixed numbers (Documentation/admin-guide/devices.txt). */
const nodes: readonly Node[] = [
  { path: 'null', major: 1, minor: 3 },
  { path: 'zero', major: 1, minor: 5 },
  { path: 'random', major: 1, minor: 8 },
  { path: 'urandom', major: 1, minor: 9 },
  { path: 'kvm', major: 10, minor: 232 },
  { path: 'net/tun', major: 10, minor: 200 },
];

const mountOptions = 'size=64k,nr_inodes=32,nosuid,noexec';

/**
 * The device nodes that VMs see, for all VMs of one instance: a small tmpfs that only the group of
 * the VMs can enter. The host's own /dev/kvm and /dev/net/tun, which may be root's alone, stay as
 * they are. A tmpfs of our own because /run forbids device nodes on most systems.
 */
export class JailDevices {
  readonly directory: string;
  readonly #exec: Exec;
  readonly #gid: number;

  constructor(exec: Exec, runDir: string, gid: number) {
    this.#exec = exec;
    this.#gid = gid;
    this.directory = join(runDir, 'dev');
  }

  /** Makes what is missing; cheap when all is there. */
  async ensure(ctx: Context): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o711 });
    if (!(await isMounted(this.directory)))
      await this.#exec.run(ctx, 'mount', [
        ...['-t', 'tmpfs', '-o', `${mountOptions},mode=0710,gid=${String(this.#gid)}`],
        ...['herkos-dev', this.directory],
      ]);
    await mkdir(join(this.directory, 'net'), { recursive: true });
    await this.#exec.run(ctx, 'chmod', ['0755', join(this.directory, 'net')]);
    for (const node of nodes) {
      const path = join(this.directory, node.path);
      if (!(await exists(path)))
        await this.#exec.run(ctx, 'mknod', ['-m', '0660', path, 'c', String(node.major), String(node.minor)]);
    }
    // Each time: an earlier try may have ended before it, and the configuration may name another group since.
    const paths = [this.directory, ...nodes.map(({ path }) => join(this.directory, path))];
    await this.#exec.run(ctx, 'chgrp', [String(this.#gid), ...paths]);
  }

  /** Unmounts; running VMs keep what they have. */
  async removeGone(ctx: Context): Promise<void> {
    while (await isMounted(this.directory)) await this.#exec.run(ctx, 'umount', ['--lazy', this.directory]);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}
