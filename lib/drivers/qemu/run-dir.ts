import { chmod, chown, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { HerkosError, isErrno } from '../../base/errors.js';
import { isId } from '../../base/ids.js';

/** sockaddr_un.sun_path with its final NUL (unix(7)). */
const socketPathBytesMax = 107;
const longestName = 'agent';
const idLength = 64;
const passThrough = 0o011;

/** The files of one VM on the host. Names are short because the length of socket paths is limited. */
export interface VmPaths {
  readonly directory: string;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  /** Standard error of QEMU, and the guest's console when that is kept. */
  readonly log: string;
  readonly devices: string;
  /** Through it a clone gets the state of its devices. */
  readonly incomingSocket: string;
}

export class RunDirectory {
  readonly #runDir: string;
  readonly #root: string;

  /** @throws HerkosError `InvalidArgument` when socket paths below `runDir` would be too long */
  constructor(runDir: string) {
    this.#runDir = runDir;
    this.#root = join(runDir, 'vm');
    const longest = Buffer.byteLength(join(this.#root, '0'.repeat(idLength), longestName));
    if (longest > socketPathBytesMax)
      throw new HerkosError(
        'InvalidArgument',
        `the run directory ${runDir} is ${String(longest - socketPathBytesMax)} bytes too long for unix sockets below it; choose a shorter one`,
      );
  }

  /** Makes the directory of all VMs. VMs' users pass through it and what is above, but cannot list either. */
  async prepare(): Promise<void> {
    await mkdir(this.#root, { recursive: true });
    for (const directory of [this.#runDir, this.#root]) {
      const { mode } = await stat(directory);
      // The daemon's umask, or whoever made the directory, may have shut VMs out.
      if ((mode & passThrough) !== passThrough) await chmod(directory, (mode & 0o777) | passThrough);
    }
  }

  pathsOf(id: string): VmPaths {
    if (!isId(id)) throw new HerkosError('InvalidArgument', `'${id}' is not a VM id`);
    const directory = join(this.#root, id);
    return {
      directory,
      qmpSocket: join(directory, 'qmp'),
      agentSocket: join(directory, longestName),
      log: join(directory, 'log'),
      devices: join(directory, 'devices.json'),
      incomingSocket: join(directory, 'in'),
    };
  }

  /**
   * Makes the directory; QEMU, running as `uid`, binds its sockets in it before the guest runs.
   * @throws HerkosError `AlreadyExists` when the VM has one: it must not be taken from a living VM
   */
  async create(id: string, uid: number): Promise<VmPaths> {
    const paths = this.pathsOf(id);
    await mkdir(paths.directory, { mode: 0o700 }).catch((error: unknown) => {
      if (!isErrno(error, 'EEXIST')) throw error;
      throw new HerkosError('AlreadyExists', `VM ${id} has a run directory already`, { cause: error });
    });
    await chown(paths.directory, uid, uid);
    return paths;
  }

  /**
   * Takes the directory away from QEMU before the guest's first instruction: a QEMU that the guest
   * took over could otherwise put a link to another socket in the agent's place, and we would
   * speak to it as root.
   */
  async seal(id: string): Promise<void> {
    const { directory } = this.pathsOf(id);
    await chown(directory, 0, 0);
    await chmod(directory, 0o700);
  }

  async removeGone(id: string): Promise<void> {
    await rm(this.pathsOf(id).directory, { recursive: true, force: true });
  }

  /** Ids of all VM directories, whoever they belong to. */
  async list(): Promise<string[]> {
    try {
      return (await readdir(this.#root)).filter(isId);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }
}
