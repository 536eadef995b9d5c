/** Memory and disk in step. Good news is told after it is durable; bad news at once, and written as soon as it can be. */
import type { Context } from '../base/context.js';
import { background, sleep } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import { KeyedLock } from '../base/keyed-lock.js';
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
  /** Of a record, one write at a time. */
  readonly #order = new KeyedLock();

  constructor(stores: PodStores, log: Logger, deadlines: PodDeadlines, life: Context) {
    this.#life = life;
    this.#stores = stores;
    this.#log = log;
    this.#deadlines = deadlines;
  }

  /** Durable first, then visible. @throws when it cannot be written; what was is written again then, until it is there */
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
    await this.#delete(this.#stores.sandboxes, entry);
  }

  async deleteContainer(entry: ContainerEntry): Promise<void> {
    await this.#delete(this.#stores.containers, entry);
  }

  async #put<T extends Identified>(store: RecordStore<T>, entry: Entry<T>, next: T): Promise<void> {
    const before = entry.record;
    await this.#order.run(background(), next.id, async () => {
      if (entry.record === before) {
        try {
          await store.put(next);
        } catch (error) {
          // It may be on the disk all the same, where a later daemon would take it for true.
          void this.#retry(store, entry);
          throw error;
        }
      }
      if (entry.record !== before) {
        // Bad news came meanwhile, and may not be overwritten by this.
        await this.#write(store, entry);
        throw new HerkosError(
          'FailedPrecondition',
          `it is ${entry.record.phase} now and cannot be ${next.phase}`,
        );
      }
      entry.record = next;
    });
  }

  async #note<T extends Identified>(store: RecordStore<T>, entry: Entry<T>, next: T): Promise<void> {
    entry.record = next;
    await this.#order.run(background(), next.id, () => this.#write(store, entry));
  }

  /** After all that was to be written before. */
  async #delete<T extends Identified>(store: RecordStore<T>, entry: Entry<T>): Promise<void> {
    this.#deleted.add(entry);
    const { id } = entry.record;
    await this.#order.run(background(), id, () => store.delete(id));
  }

  async #write<T extends Identified>(store: RecordStore<T>, entry: Entry<T>): Promise<void> {
    const { record } = entry;
    try {
      await store.put(record);
    } catch (error) {
      this.#log.error('a record cannot be written; trying again', {
        id: record.id,
        phase: record.phase,
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
    while (this.#retrying.has(entry)) {
      try {
        await sleep(this.#life, delayMs);
      } catch {
        return;
      }
      delayMs = Math.min(delayMs * 2, this.#deadlines.retryMaxMs);
      // In its turn: what it writes may not be older than what a put writes beside it.
      await this.#order.run(background(), entry.record.id, () => this.#tryAgain(store, entry));
    }
  }

  async #tryAgain<T extends Identified>(store: RecordStore<T>, entry: Entry<T>): Promise<void> {
    try {
      if (!this.#deleted.has(entry)) await store.put(entry.record);
      this.#retrying.delete(entry);
    } catch {
      // The first failure was told.
    }
  }
}
