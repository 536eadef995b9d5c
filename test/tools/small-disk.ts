/** A disk that can be full: a small tmpfs whose directories are bound to where a daemon keeps things. */
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { isErrno } from '../../lib/base/errors.js';
import { systemExec } from '../../lib/base/exec.js';
import { KIB, MIB } from '../../lib/base/units.js';

/** Pieces get smaller until not even one page is left. */
const pieceBytes = [MIB, 4 * KIB, 1];

export class SmallDisk {
  readonly #directory: string;
  readonly #names: readonly string[];

  private constructor(directory: string, names: readonly string[]) {
    this.#directory = directory;
    this.#names = names;
  }

  /** Makes `<directory>/<name>` for each name; all of them share `sizeMib`. */
  static async mount(directory: string, names: readonly string[], sizeMib: number): Promise<SmallDisk> {
    const disk = new SmallDisk(directory, names);
    await mkdir(disk.#path);
    const options = `size=${String(sizeMib)}m,mode=711`;
    await systemExec.run(background(), 'mount', ['-t', 'tmpfs', '-o', options, 'herkos-test', disk.#path]);
    for (const name of names) {
      for (const parent of [disk.#path, directory]) await mkdir(join(parent, name), { mode: 0o711 });
      const [from, to] = [join(disk.#path, name), join(directory, name)];
      await systemExec.run(background(), 'mount', ['--bind', from, to]);
    }
    return disk;
  }

  /** Leaves no room for one byte. */
  async fill(): Promise<void> {
    const file = await open(this.#filler, 'a');
    try {
      for (const size of pieceBytes) {
        const piece = Buffer.alloc(size);
        while (await wasWritten(file.appendFile(piece)));
      }
    } finally {
      await file.close();
    }
  }

  /** Gives all room back that `fill` took. */
  async free(): Promise<void> {
    await rm(this.#filler, { force: true });
  }

  /** Lazily: whoever has files open on it does not stand in the way. */
  async unmount(): Promise<void> {
    const mounts = [...this.#names.map((name) => join(this.#directory, name)), this.#path];
    for (const path of mounts)
      await systemExec.run(background(), 'umount', ['--lazy', path], { okExitCodes: [0, 1, 32] });
  }

  get #path(): string {
    return join(this.#directory, 'disk');
  }

  get #filler(): string {
    return join(this.#path, 'filler');
  }
}

async function wasWritten(write: Promise<void>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOSPC')) return false;
    throw error;
  }
}
