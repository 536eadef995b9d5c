/** A file system that nobody serves: whoever looks for something in it hangs until it is gone. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, open, rmdir } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';

const device = '/dev/fuse';

export class StalledFs {
  readonly directory: string;
  readonly #server: FileHandle;

  private constructor(directory: string, server: FileHandle) {
    this.directory = directory;
    this.#server = server;
  }

  /** False on a host that has no FUSE. */
  static async isPossible(): Promise<boolean> {
    return access(device).then(
      () => true,
      () => false,
    );
  }

  static async mount(): Promise<StalledFs> {
    const directory = await mkdtemp(join(tmpdir(), 'herkos-stalled-'));
    const server = await open(device, 'r+');
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
    const mount = spawn('mount', ['-i', '-t', 'fuse', '-o', options, 'stalled', directory], {
      stdio: ['ignore', 'ignore', 'inherit', server.fd],
    });
    const [code] = (await once(mount, 'exit')) as [number | null];
    if (code !== 0) throw new Error(`mount ended with ${String(code)}`);
    return new StalledFs(directory, server);
  }

  /** Whoever hangs in it goes on, with an error. */
  async unmount(): Promise<void> {
    await this.#server.close();
    await systemExec.run(background(), 'umount', ['--lazy', this.directory]);
    await rmdir(this.directory);
  }
}
