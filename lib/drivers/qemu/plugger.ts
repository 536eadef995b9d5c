import type { Context } from '../../base/context.js';
import { abortable, background, underDeadline } from '../../base/context.js';
import { classOf, messageOf } from '../../base/errors.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import type { LogFields, Logger } from '../../base/logger.js';
import type { DeviceBook, DeviceEntry } from './device-book.js';
import { deviceIds, removeBackends } from './device-commands.js';
import type { QmpCommand } from './device-commands.js';
import type { QmpSession } from './qmp-session.js';
import { Unplugger } from './unplugger.js';

export interface PluggerOptions {
  readonly session: QmpSession;
  readonly book: DeviceBook;
  /** Makes the book durable; called before each step. */
  readonly save: (json: string) => Promise<void>;
  readonly unplugTimeoutMs: number;
  readonly logger: Logger;
}

/** Undoing a failed plug must end too, though the request's own context has ended. */
const undoTimeoutMs = 10_000;
/** What stays for good is plugged to the end, whoever leaves meanwhile. QEMU takes milliseconds for each device. */
const lastingPlugTimeoutMs = 30_000;
const lockKey = 'plug';

/** Plugs and unplugs what the entries of the book name, one change at a time, and keeps the book right. */
export class Plugger {
  readonly book: DeviceBook;
  readonly session: QmpSession;
  readonly #options: PluggerOptions;
  readonly #lock = new KeyedLock();
  readonly #unplugger: Unplugger;

  constructor(options: PluggerOptions) {
    this.#options = options;
    this.book = options.book;
    this.session = options.session;
    this.#unplugger = new Unplugger({
      session: options.session,
      timeoutMs: options.unplugTimeoutMs,
      logger: options.logger,
      onGone: (entry) => this.#onGone(entry),
    });
  }

  /**
   * One change at a time. The caller is let go when its context ends, even if QEMU hangs; what was
   * begun is finished or undone behind it, before the next change.
   */
  async exclusive<T>(ctx: Context, body: () => Promise<T>): Promise<T> {
    return abortable(ctx, this.#lock.run(ctx, lockKey, body));
  }

  /**
   * Runs `commands` for a new entry; after a failure nothing of it stays. What cannot be unplugged is finished
   * though the context has ended: half of it would take its place for as long as the VM lives.
   */
  async plug(
    ctx: Context,
    entry: DeviceEntry,
    commands: (entry: DeviceEntry) => QmpCommand[],
  ): Promise<void> {
    const run = async (step: Context): Promise<void> => {
      for (const { command, args } of commands(entry)) await this.session.execute(step, command, args);
    };
    try {
      await this.save();
      if (canUnplug(entry)) await run(ctx);
      else await underDeadline(background(), lastingPlugTimeoutMs, 'plugging', run);
      entry.state = 'plugged';
      await this.save();
    } catch (error) {
      await this.#undoPlug(entry);
      throw error;
    }
  }

  /** Returns the entries that nobody uses any more and that the guest is asked to let go. */
  async release(owner: string, entries: readonly DeviceEntry[]): Promise<DeviceEntry[]> {
    const unused: DeviceEntry[] = [];
    for (const entry of entries) {
      entry.owners = entry.owners.filter((other) => other !== owner);
      if (entry.owners.length > 0 || !canUnplug(entry)) continue;
      entry.state = 'leaving';
      unused.push(entry);
    }
    if (entries.length > 0) await this.save();
    for (const entry of unused) this.#unplugger.start(entry);
    return unused;
  }

  /** The guest keeps them, so they are in use again. Those that have gone meanwhile stay gone. */
  async recall(owner: string, entries: readonly DeviceEntry[]): Promise<void> {
    for (const entry of entries) {
      this.#unplugger.stop(entry);
      entry.state = 'plugged';
      entry.owners = [owner];
    }
    await this.save();
  }

  /** False when the guest has kept one of them for the unplug timeout. */
  async haveLeft(ctx: Context, entries: readonly DeviceEntry[]): Promise<boolean> {
    return this.#unplugger.haveLeft(ctx, entries);
  }

  /** After a restart: makes the book agree with what QEMU has, and ends what was half done. */
  async reconcile(ctx: Context): Promise<void> {
    const present = await this.#presentDevices(ctx);
    for (const entry of this.book.entries) {
      const ids = deviceIds(entry);
      const there = ids.filter((id) => present.has(id));
      if (entry.state !== 'leaving' && there.length === ids.length) entry.state = 'plugged';
      else await this.#withdraw(entry, there);
    }
    await this.save();
  }

  async save(): Promise<void> {
    await this.#options.save(this.book.toJson());
  }

  debug(message: string, fields: LogFields): void {
    this.#options.logger.debug(message, fields);
  }

  warn(message: string, error: unknown): void {
    this.#options.logger.warn(message, { error: messageOf(error) });
  }

  /** A command that was given up may still have worked: what QEMU has is asked, not assumed. */
  async #undoPlug(entry: DeviceEntry): Promise<void> {
    entry.state = 'leaving';
    try {
      await underDeadline(background(), undoTimeoutMs, 'undoing a plug', async (ctx) => {
        const present = await this.#presentDevices(ctx);
        await this.#withdraw(
          entry,
          deviceIds(entry).filter((id) => present.has(id)),
        );
      });
    } catch (error) {
      // A dead VM has no devices to undo.
      if (classOf(error) !== 'Unavailable')
        this.warn('cannot undo a failed plug; its port stays in use', error);
    }
  }

  /** Takes back an entry of which only the devices `there` exist. */
  async #withdraw(entry: DeviceEntry, there: readonly string[]): Promise<void> {
    // Part of the machine's size, which is asked of QEMU: what is there counts, whoever plugged it.
    const isSize = there.length > 0 && (entry.kind === 'cpu' || entry.kind === 'memory');
    // Layers that are all there serve the next container of their image.
    const stays = isSize || (!canUnplug(entry) && there.length === deviceIds(entry).length);
    entry.state = stays ? 'plugged' : 'leaving';
    if (!isSize) entry.owners = [];
    await this.save();
    if (there.length === 0) await this.#free(entry);
    else if (!stays && canUnplug(entry)) this.#unplugger.start(entry);
  }

  async #onGone(entry: DeviceEntry): Promise<void> {
    try {
      await this.#lock.run(background(), lockKey, () => this.#free(entry));
    } catch (error) {
      this.warn('cannot free a port', error);
    }
  }

  /** The devices are gone: removes what stood behind them and makes the place free. */
  async #free(entry: DeviceEntry): Promise<void> {
    for (const { command, args } of removeBackends(entry)) {
      try {
        await this.session.execute(background(), command, args);
      } catch (error) {
        if (classOf(error) === 'Unavailable') return;
        // After a plug that failed half way it may never have been there.
        this.#options.logger.debug('no backend to remove', { command, error: messageOf(error) });
      }
    }
    this.book.remove(entry);
    await this.save();
  }

  async #presentDevices(ctx: Context): Promise<Set<string>> {
    const listed = await this.session.execute(ctx, 'qom-list', { path: '/machine/peripheral' });
    const names = Array.isArray(listed) ? listed : [];
    return new Set(
      names.flatMap((item: unknown) =>
        typeof item === 'object' && item !== null && 'name' in item ? [String(item.name)] : [],
      ),
    );
  }
}

/**
 * QEMU takes no memory device back ("virtio based memory devices cannot be unplugged", the same for
 * NVDIMM): a layer stays plugged without an owner, and serves the next container that uses it.
 */
function canUnplug(entry: DeviceEntry): boolean {
  switch (entry.kind) {
    case 'disk':
    case 'nic':
    case 'serial':
    case 'cpu':
      return true;
    case 'layers':
    case 'nvdimm':
    case 'memory':
      return false;
  }
}
