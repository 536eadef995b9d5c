/**
 * The device files: `<root>/layers/<key>`. A file appears complete and durable or not at all (the
 * converter writes beside it and renames). It stays while a record or a hold names it or somebody pins it.
 */
import { chown, mkdir, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';

import { syncDirectory, temporarySuffix } from '../base/atomic-file.js';
import type { CancellableContext, Context } from '../base/context.js';
import { background, throwIfDone, withCancel } from '../base/context.js';
import { isErrno, messageOf } from '../base/errors.js';
import { KeyedLock } from '../base/keyed-lock.js';
import type { Logger } from '../base/logger.js';

const keyPattern = /^[0-9a-f]{64}$/;
/** `stat` counts blocks of this size whatever the file system's own are (stat(2)). */
const statBlockBytes = 512;

/** Writes the file at `path`; `ctx` ends when somebody else has written it. */
export type MakeFile = (path: string, ctx: Context) => Promise<void>;

export class LayerStore {
  readonly directory: string;
  readonly #log: Logger;
  readonly #readersGid: number | undefined;
  readonly #lock = new KeyedLock();
  /** Sizes of the finished files by key. */
  readonly #files = new Map<string, number>();
  /** Who is writing a file, by key. */
  readonly #makers = new Map<string, Set<CancellableContext>>();
  /** How many users keep a file that no record names yet. */
  readonly #pins = new Map<string, number>();

  /** @param readersGid the group that may read the files, whose mode is 0440. */
  constructor(directory: string, readersGid: number | undefined, log: Logger) {
    this.directory = directory;
    this.#readersGid = readersGid;
    this.#log = log;
  }

  /** Reads the directory and removes what crashed conversions left. Nobody else may write there. */
  async load(): Promise<void> {
    const { directory } = this;
    const log = this.#log;
    await mkdir(directory, { recursive: true, mode: 0o711 });
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name);
      if (keyPattern.test(entry.name) && entry.isFile()) await this.#adopt(entry.name);
      else if (entry.name.endsWith(temporarySuffix) && entry.isFile()) {
        log.info('a half-written layer is removed', { path });
        await unlink(path);
      } else log.warn('a file in the layer store is not ours and was left alone', { path });
    }
    await syncDirectory(directory);
  }

  has(key: string): boolean {
    return this.#files.has(key);
  }

  pathOf(key: string): string {
    return join(this.directory, key);
  }

  sizeOf(key: string): number | undefined {
    return this.#files.get(key);
  }

  /** Keeps files, present or to come, from being collected until the returned function is called. */
  pin(keys: readonly string[]): () => void {
    for (const key of keys) this.#pins.set(key, (this.#pins.get(key) ?? 0) + 1);
    let pinned = true;
    return () => {
      if (!pinned) return;
      pinned = false;
      for (const key of keys) {
        const left = (this.#pins.get(key) ?? 1) - 1;
        if (left === 0) this.#pins.delete(key);
        else this.#pins.set(key, left);
      }
    };
  }

  /**
   * Has `make` write the file unless it is there. Whoever asks for the same key and place meanwhile waits for it;
   * who takes it from another place does not, since a place may be as slow as it likes. The first to have it ends
   * the context that the others were given. The caller has pinned the key.
   */
  async ensure(ctx: Context, key: string, place: string, make: MakeFile): Promise<void> {
    await this.#lock.run(ctx, `${key} ${place}`, async () => {
      // A removal that began before the key was pinned must not meet the new file.
      await this.#lock.run(ctx, key, () => Promise.resolve());
      if (!this.#files.has(key)) await this.#make(ctx, key, make);
    });
  }

  async #make(ctx: Context, key: string, make: MakeFile): Promise<void> {
    const mine = withCancel(ctx);
    const makers = this.#makers.get(key) ?? new Set();
    this.#makers.set(key, makers.add(mine));
    try {
      await make(this.pathOf(key), mine);
      await this.#adopt(key);
      for (const maker of makers) maker.cancel();
    } catch (error) {
      throwIfDone(ctx);
      if (!this.#files.has(key)) throw error;
    } finally {
      mine.cancel();
      makers.delete(mine);
      if (makers.size === 0) this.#makers.delete(key);
    }
  }

  /** Counts a finished file as ours. The group is set here too: a crash may come between rename and chown. */
  async #adopt(key: string): Promise<void> {
    const path = this.pathOf(key);
    const { size, uid, gid } = await stat(path);
    if (this.#readersGid !== undefined && gid !== this.#readersGid) await chown(path, uid, this.#readersGid);
    this.#files.set(key, size);
  }

  /** Forgets files that somebody else removed; returns the keys of `keys` that are gone. */
  async missing(keys: readonly string[]): Promise<string[]> {
    const gone: string[] = [];
    for (const key of keys) {
      const size = await sizeOnDisk(this.pathOf(key));
      if (size !== undefined && size === this.#files.get(key)) continue;
      this.#files.delete(key);
      gone.push(key);
    }
    return gone;
  }

  /** Removes the files that are neither needed nor pinned; a file that cannot be removed is logged and tried next time. */
  async collect(isNeeded: (key: string) => boolean): Promise<void> {
    const idle = (key: string): boolean => !this.#pins.has(key) && !isNeeded(key);
    let removed = 0;
    for (const key of [...this.#files.keys()].filter(idle)) {
      await this.#lock.run(background(), key, async () => {
        // Somebody may have come to need it while this waited.
        if (!idle(key) || !this.#files.has(key)) return;
        try {
          this.#files.delete(key);
          await unlink(this.pathOf(key));
          removed += 1;
        } catch (error) {
          if (isErrno(error, 'ENOENT')) return;
          this.#log.error('a layer that nobody uses could not be removed', { key, error: messageOf(error) });
        }
      });
    }
    if (removed > 0) await syncDirectory(this.directory);
  }

  /** Bytes on the disk and number of files, unfinished ones included. */
  async usage(): Promise<{ usedBytes: number; inodes: number }> {
    let usedBytes = 0;
    let inodes = 1;
    for (const name of await readdir(this.directory)) {
      try {
        const { blocks } = await stat(join(this.directory, name));
        usedBytes += blocks * statBlockBytes;
        inodes += 1;
      } catch (error) {
        // It went while we looked.
        if (!isErrno(error, 'ENOENT')) throw error;
      }
    }
    return { usedBytes, inodes };
  }
}

async function sizeOnDisk(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
