import { access, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { HerkosError, messageOf } from '../../lib/base/errors.js';
import type { HeldMemory, TemplateMemories, UnsealedMemory } from '../../lib/vm/ports.js';

/** Memory as ordinary files, `<directory>/<id>/memory`, that a test can damage as nobody can a real one. */
export class FakeTemplateMemories implements TemplateMemories {
  readonly #directory: string;
  readonly sealed = new Set<string>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  async make(_: Context, id: string, bytes: number, gid: number): Promise<UnsealedMemory> {
    const path = this.#pathOf(id);
    const file = await open(path, 'wx', 0o600);
    try {
      await file.truncate(bytes);
      await file.chown(process.getuid?.() ?? 0, gid);
      await file.chmod(0o660);
    } finally {
      await file.close();
    }
    return {
      memory: { path, inode: (await stat(path)).ino, bytes, pid: process.pid, startTicks: '0' },
      seal: () => {
        this.sealed.add(id);
        return Promise.resolve();
      },
    };
  }

  async check({ path, inode, bytes }: HeldMemory): Promise<void> {
    const changed = (what: string): HerkosError =>
      new HerkosError('FailedPrecondition', `the memory ${path} changed: ${what}`, {
        reason: 'TEMPLATE_CHANGED',
      });
    const now = await stat(path).catch((error: unknown) => {
      throw changed(messageOf(error));
    });
    if (now.ino !== inode || now.size !== bytes) throw changed('its inode or size');
  }

  async bytesHeld(): Promise<number> {
    let bytes = 0;
    for (const id of await this.list()) bytes += (await stat(this.#pathOf(id))).size;
    return bytes;
  }

  async removeGone(_: Context, id: string): Promise<void> {
    await rm(this.#pathOf(id), { force: true });
  }

  async list(): Promise<string[]> {
    const found: string[] = [];
    for (const id of await readdir(this.#directory).catch(() => []))
      if (await exists(this.#pathOf(id))) found.push(id);
    return found;
  }

  #pathOf(id: string): string {
    return join(this.#directory, id, 'memory');
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
