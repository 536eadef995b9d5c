import type { Context } from '../../base/context.js';
import { abortable, background, throwIfDone, withTimeout } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { DeviceEntry } from './device-book.js';
import { deviceIds, unplug } from './device-commands.js';
import type { QmpEvent, QmpSession } from './qmp-session.js';

const retryMs = 2_000;
const triesMax = 10;

export interface UnpluggerOptions {
  readonly session: QmpSession;
  /** How long a caller waits for the guest to let go. */
  readonly timeoutMs: number;
  readonly logger: Logger;
  /** The entry's devices are gone; never rejects. */
  readonly onGone: (entry: DeviceEntry) => Promise<void>;
}

/** Asks the guest for devices until it lets them go, which it may never do. */
export class Unplugger {
  readonly #options: UnpluggerOptions;
  /** Devices whose removal is awaited, by entry. */
  readonly #leaving = new Map<DeviceEntry, Leaving>();

  constructor(options: UnpluggerOptions) {
    this.#options = options;
    options.session.onEvent((event) => {
      this.#onEvent(event);
    });
  }

  start(entry: DeviceEntry): void {
    if (this.#leaving.has(entry)) return;
    const leaving = new Leaving(deviceIds(entry));
    this.#leaving.set(entry, leaving);
    void this.#insist(entry, leaving);
  }

  /** Asks no more. The guest may still let the device go: its answer to the last request is on its way. */
  stop(entry: DeviceEntry): void {
    const leaving = this.#leaving.get(entry);
    if (leaving === undefined || leaving.isGone) return;
    leaving.isRecalled = true;
    this.#leaving.delete(entry);
    leaving.settle();
  }

  /** False when the guest has kept one of them for the unplug timeout. */
  async haveLeft(ctx: Context, entries: readonly DeviceEntry[]): Promise<boolean> {
    if (entries.length === 0) return true;
    const { session, timeoutMs } = this.#options;
    const gone = Promise.all(entries.map(async (entry) => this.#leaving.get(entry)?.gone));
    const patience = withTimeout(ctx, timeoutMs, 'unplugging');
    try {
      await abortable(patience, Promise.race([gone, session.lost]));
      return true;
    } catch {
      throwIfDone(ctx);
      return false;
    } finally {
      patience.cancel();
    }
  }

  /** Asks until the device is gone: a guest that is still booting loses the request. */
  async #insist(entry: DeviceEntry, leaving: Leaving): Promise<void> {
    const { session, logger } = this.#options;
    const { command, args } = unplug(entry);
    for (let tried = 0; tried < triesMax && !leaving.isOver; tried += 1) {
      try {
        await session.execute(background(), command, args);
      } catch (error) {
        if (classOf(error) === 'Unavailable') return;
        // Gone before we listened: the daemon before us had asked, or the guest let go by itself.
        if (error instanceof HerkosError && error.reason === 'QMP_DEVICE_NOT_FOUND') this.#onGone(entry);
        else logger.debug('QEMU did not take an unplug request', { error: messageOf(error) });
      }
      const pause = withTimeout(background(), retryMs, 'the guest');
      await abortable(pause, Promise.race([leaving.gone, session.lost])).catch(() => undefined);
      pause.cancel();
    }
  }

  #onEvent(event: QmpEvent): void {
    if (event.name !== 'DEVICE_DELETED') return;
    const id = deletedId(event);
    if (id === undefined) return;
    for (const [entry, leaving] of this.#leaving) if (leaving.take(id)) this.#onGone(entry);
  }

  #onGone(entry: DeviceEntry): void {
    const leaving = this.#leaving.get(entry);
    if (leaving === undefined || leaving.isGone) return;
    leaving.isGone = true;
    void this.#options.onGone(entry).finally(() => {
      this.#leaving.delete(entry);
      leaving.settle();
    });
  }
}

/**
 * A vCPU may be gone without a word: QEMU tells of a device when its last reference is dropped, and
 * something may keep one to a vCPU for good. The interrupt controller inside goes in the same moment.
 */
function deletedId({ data }: QmpEvent): string | undefined {
  const { device, path } = data;
  if (typeof device === 'string') return device;
  return typeof path === 'string' ? /^\/machine\/peripheral\/(c\d+)\/lapic$/.exec(path)?.[1] : undefined;
}

/** Devices of one entry that have not gone yet. */
class Leaving {
  isGone = false;
  isRecalled = false;
  readonly gone: Promise<void>;
  settle: () => void = () => undefined;
  readonly #ids: Set<string>;

  constructor(ids: readonly string[]) {
    this.#ids = new Set(ids);
    this.gone = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  get isOver(): boolean {
    return this.isGone || this.isRecalled;
  }

  /** True when `id` was the last one. */
  take(id: string): boolean {
    return this.#ids.delete(id) && this.#ids.size === 0;
  }
}
