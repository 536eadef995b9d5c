import type { LogFiles, OpenLog } from '../../lib/pod/output/files.js';
import { systemLogFiles } from '../../lib/pod/output/files.js';

/** File operations that die, for good, at the nth one; an append that dies has written a part. */
export class DyingFiles {
  count = 0;
  isDead = false;
  /** Appends fail so often with a full disk, after writing a part. */
  fullAppends = 0;

  constructor(
    readonly dieAt = Number.POSITIVE_INFINITY,
    readonly afterEffect = true,
  ) {}

  /** Files that a dead process had open are closed by the kernel. */
  readonly #open: OpenLog[] = [];

  async release(): Promise<void> {
    this.isDead = true;
    await Promise.all(this.#open.splice(0).map((log) => log.close().catch(() => undefined)));
  }

  /** What the test changes is not what the compiler sees. */
  get isGone(): boolean {
    return this.isDead;
  }

  async #through<T>(effect: () => Promise<T>, partly?: () => Promise<unknown>): Promise<T> {
    if (this.isDead) return new Promise<T>(() => undefined);
    this.count += 1;
    if (this.count >= this.dieAt) {
      this.isDead = true;
      await (this.afterEffect ? effect() : partly?.());
      return new Promise<T>(() => undefined);
    }
    const result = await effect();
    return this.isGone ? new Promise<T>(() => undefined) : result;
  }

  get files(): LogFiles {
    return {
      open: (path, create) =>
        this.#through(async () => {
          const log = await systemLogFiles.open(path, create);
          return log === undefined ? undefined : this.#guard(log);
        }),
      findByInode: (directory, inode) => this.#through(() => systemLogFiles.findByInode(directory, inode)),
      readCursor: (path) => this.#through(() => systemLogFiles.readCursor(path)),
      writeCursor: (path, text) => this.#through(() => systemLogFiles.writeCursor(path, text)),
      removeGone: (path) => this.#through(() => systemLogFiles.removeGone(path)),
    };
  }

  #guard(log: OpenLog): OpenLog {
    if (this.isGone) void log.close();
    else this.#open.push(log);
    const part = (data: Buffer): Promise<void> => log.append(data.subarray(0, Math.ceil(data.length * 0.6)));
    return {
      inode: log.inode,
      size: () => this.#through(() => log.size()),
      append: (data) =>
        this.#through(
          async () => {
            if (this.fullAppends > 0) {
              this.fullAppends -= 1;
              await part(data);
              throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
            }
            await log.append(data);
          },
          () => part(data),
        ),
      truncate: (bytes) => this.#through(() => log.truncate(bytes)),
      read: (position, length) => this.#through(() => log.read(position, length)),
      close: () => log.close(),
    };
  }
}
