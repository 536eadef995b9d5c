/** What a daemon on its defaults makes on a node beside pods; a quickstart removes of it what was not there before. */
import { access, readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../lib/base/context.js';
import { isErrno } from '../lib/base/errors.js';
import { systemExec } from '../lib/base/exec.js';
import { isMounted } from '../lib/base/mounts.js';
import { SealedTemplateMemories } from '../lib/drivers/memfd/template-memories.js';

const bridge = 'herkos0';
/** What VM processes see as devices, and what they are cloned from. */
const mountPoints = ['/run/herkos/dev', '/run/herkos/templates'];
const vmDirectory = '/run/herkos/vm';
const directories = ['/var/lib/herkos', '/run/herkos'];
const cgroupRoot = '/sys/fs/cgroup';
const cgroupName = 'herkos';

/** Looks at processes only. */
const memories = new SealedTemplateMemories({ instance: 'herkos', hostHelper: '' });

interface Trace {
  readonly name: string;
  isThere(): Promise<boolean>;
  remove(): Promise<void>;
}

/** In the order in which they are removed: a directory after what is mounted in it. */
async function allTraces(): Promise<Trace[]> {
  const network = join('/sys/class/net', bridge);
  return [
    {
      name: `bridge ${bridge}`,
      isThere: () => exists(network),
      remove: () => run('ip', 'link', 'delete', bridge),
    },
    {
      // Templates outlive the daemon.
      name: 'memory of templates',
      isThere: async () => (await memories.list()).length > 0,
      remove: async () => {
        for (const id of await memories.list()) await memories.removeGone(background(), id);
      },
    },
    ...mountPoints.map((path) => ({
      name: `mount ${path}`,
      isThere: () => isMounted(path),
      remove: () => run('umount', path),
    })),
    ...directories.map((path) => ({
      name: path,
      isThere: () => exists(path),
      remove: () => rm(path, { recursive: true }),
    })),
    ...(await cgroupPaths()).map((path) => ({
      name: path,
      isThere: () => exists(path),
      remove: () => removeCgroup(path),
    })),
  ];
}

export class NodeTraces {
  readonly #fresh: readonly Trace[];

  private constructor(fresh: readonly Trace[]) {
    this.#fresh = fresh;
  }

  /** Before the daemon starts: what is there now is not ours to remove. */
  static async look(): Promise<NodeTraces> {
    const fresh: Trace[] = [];
    for (const trace of await allTraces()) if (!(await trace.isThere())) fresh.push(trace);
    return new NodeTraces(fresh);
  }

  /** After the daemon has ended; names what it removed. @throws Error when there are pods, which need all of it */
  async remove(): Promise<string[]> {
    const vms = await readdir(vmDirectory).catch(() => []);
    if (vms.length > 0)
      throw new Error(`virtual machines are left in ${vmDirectory}; start herkosd and remove their pods`);
    const removed: string[] = [];
    for (const trace of this.#fresh) {
      if (!(await trace.isThere())) continue;
      await trace.remove();
      removed.push(trace.name);
    }
    return removed;
  }
}

/** The parent of all pods without a cgroup parent, in each hierarchy: cgroup v2 has one, v1 and hybrid several. */
async function cgroupPaths(): Promise<string[]> {
  const roots = await readdir(cgroupRoot, { withFileTypes: true });
  const real = roots
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(cgroupRoot, name, cgroupName));
  return [join(cgroupRoot, cgroupName), ...real];
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** It stays when somebody else has put something into it. */
async function removeCgroup(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (!isErrno(error, 'EBUSY') && !isErrno(error, 'ENOENT')) throw error;
  }
}

async function run(program: string, ...args: string[]): Promise<void> {
  await systemExec.run(background(), program, args);
}
