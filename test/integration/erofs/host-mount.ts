/** What the host's kernel and tools make of an image. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { deviceHeadBytes } from '../../../lib/wire/erofs/pfn-info.js';
import { collect } from '../../unit/wire/tar/collect.js';

const outputBytesMax = 256 * 1024 * 1024;

export function run(program: string, ...args: readonly string[]): Buffer {
  return execFileSync(program, args, { maxBuffer: outputBytesMax, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A directory and the mounts in it; both are gone afterwards, after a failure too. */
export class Bench {
  readonly #mounts: string[] = [];

  private constructor(readonly directory: string) {}

  static async run(body: (bench: Bench) => Promise<void>): Promise<void> {
    const bench = new Bench(await mkdtemp(join(tmpdir(), 'herkos-erofs-')));
    try {
      await body(bench);
    } finally {
      for (const mount of bench.#mounts.reverse()) run('umount', mount);
      await rm(bench.directory, { recursive: true, force: true });
    }
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  async makeDirectory(name: string): Promise<string> {
    await mkdir(this.path(name), { recursive: true });
    return this.path(name);
  }

  /** Mounts a device file through a loop device that goes with the mount. */
  async mountDevice(device: string, name: string): Promise<string> {
    return this.mount(name, 'erofs', `ro,loop,offset=${String(deviceHeadBytes)}`, device);
  }

  async mount(name: string, type: string, options: string, source: string): Promise<string> {
    const point = await this.makeDirectory(name);
    run('mount', '-t', type, '-o', options, source, point);
    this.#mounts.push(point);
    return point;
  }

  /** fsck.erofs knows no offset: it gets a copy of the image. @throws when it finds an error */
  check(device: string): void {
    const image = this.path(`image-${String(Math.random()).slice(2)}`);
    run('dd', `if=${device}`, `of=${image}`, 'bs=2M', 'skip=1', 'conv=sparse', 'status=none');
    run('fsck.erofs', image);
    run('rm', image);
  }
}

/** Everything that tar sees of a tree, in the order of names; files of this name are left out. */
export function treeOf(directory: string, exclude = ''): readonly object[] {
  const packed = run(
    'tar',
    ...['--sort=name', '--format=pax', '--pax-option=delete=atime,delete=ctime', '--numeric-owner'],
    ...['--xattrs', '--xattrs-include=*', `--exclude=${exclude}`, '-C', directory, '-cf', '-', '.'],
  );
  return collect(packed).map(({ entry, content }) => ({
    ...entry,
    xattrs: [...entry.xattrs].sort((a, b) => (a.name < b.name ? -1 : 1)),
    content: content.toString('latin1'),
  }));
}
