/** Memory and disk in step. Good news is told after it is durable; bad news at once, and written as soon as it can be. */
import type { Context } from '../base/context.js';
import { sleep } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { ContainerRecord } from '../model/container.js';
import type { SandboxRecord } from '../model/sandbox.js';
import type { PodStores, RecordStore } from './ports.js';
import type { ContainerEntry, SandboxEntry } from './registry.js';
import type { PodDeadlines } from './settings.js';

interface Entry<T> {
  record: T;
}

interface Identified {
  readonly id: string;
  readonly phase: string;
}

export class Ledger {
  readonly #stores: PodStores;
  readonly #log: Logger;
  readonly #life: Context;
  readonly #deadlines: PodDeadlines;
  readonly #deleted = new WeakSet();
  readonly #retrying = new WeakSet();

  constructor(stores: PodStores, log: Logger, deadlines: PodDeadlines, life: Context) {
    this.#life = life;
    this.#stores = stores;
    this.#log = log;
    this.#deadlines = deadlines;
  }

  /** Durable first, then visible. @throws when it cannot be written; nothing has changed then */
  async putSandbox(entry: SandboxEntry, next: SandboxRecord): Promise<void> {
    await this.#put(this.#stores.sandboxes, entry, next);
  }

  async putContainer(entry: ContainerEntry, next: ContainerRecord): Promise<void> {
    await this.#put(this.#stores.containers, entry, next);
  }

  /** Visible at once; a disk that is full does not stop what has to be done. */
  async noteSandbox(entry: SandboxEntry, next: SandboxRecord): Promise<void> {
    await this.#note(this.#stores.sandboxes, entry, next);
  }

  async noteContainer(entry: ContainerEntry, next: ContainerRecord): Promise<void> {
    await this.#note(this.#stores.containers, entry, next);
  }

  async deleteSandbox(entry: SandboxEntry): Promise<void> {
    this.#deleted.add(entry);
    await this.#stores.sandboxes.delete(entry.record.id);
  }

  async deleteContainer(entry: ContainerEntry): Promise<void> {
    this.#deleted.add(entry);
    await this.#stores.containers.delete(entry.record.id);
  }

  async #put<T extends Identified>(store: RecordStore<T>, entry: Entry<T>, next: T): Promise<void> {
    const before = entry.record;
    await store.put(next);
    if (entry.record !== before) {
      // Bad news came while this was being written, and may not be overwritten by it.
      await this.#note(store, entry, entry.record);
      throw new HerkosError(
        'FailedPrecondition',
        `it is ${entry.record.phase} now and cannot be ${next.phase}`,
      );
    }
    entry.record = next;
  }

  async #note<T extends Identified>(store: RecordStore<T>, entry: Entry<T>, next: T): Promise<void> {
    entry.record = next;
    try {
      await store.put(next);
    } catch (error) {
      this.#log.error('a record cannot be written; trying again', {
        id: next.id,
        phase: next.phase,
        error: messageOf(error),
      });
      void this.#retry(store, entry);
    }
  }

  /** Writes the newest record of the entry until it is there; one loop for each entry. */
  async #retry<T extends Identified>(store: RecordStore<T>, entry: Entry<T>): Promise<void> {
    if (this.#retrying.has(entry)) return;
    this.#retrying.add(entry);
    let delayMs = this.#deadlines.retryFirstMs;
    for (;;) {
      try {
        await sleep(this.#life, delayMs);
      } catch {
        break;
      }
      if (this.#deleted.has(entry)) break;
      try {
        await store.put(entry.record);
        break;
      } catch {
        delayMs = Math.min(delayMs * 2, this.#deadlines.retryMaxMs);
      }
    }
    this.#retrying.delete(entry);
  }
}
