/**
 * Records on files: one JSON document per id in one directory, replaced atomically and durably.
 * A person can read them; a crash at any moment leaves the old or the new document, never a part.
 */
import { mkdir, open, readdir, rename, unlink } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { syncDirectory, temporarySuffix, writeFileAtomic } from '../../base/atomic-file.js';
import { background } from '../../base/context.js';
import { HerkosError, isErrno, messageOf, wrap } from '../../base/errors.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import type { Logger } from '../../base/logger.js';
import { MIB } from '../../base/units.js';
import { fileNameOfId, idOfFileName } from './file-name.js';

/** A record bigger than this is not one of ours: the biggest (a container with its config) stays far below 1 MiB. */
export const recordBytesMax = 16 * MIB;

const brokenSuffix = '.broken';
/** Files read at a time while loading: enough to hide the disk's latency, few enough to spare descriptors. */
const loadConcurrency = 16;

export interface StoredRecord {
  readonly id: string;
  readonly schemaVersion: number;
}

export interface RecordStoreOptions<T extends StoredRecord> {
  /** Made when missing, mode 0700. */
  readonly directory: string;
  /** The version that this program writes and reads; another one is set aside. */
  readonly schemaVersion: number;
  readonly logger: Logger;
  /**
   * Looks closer at a document whose id and schema version are right; returns it typed or throws a
   * reason to set it aside. Without it the document is trusted: only this program writes here.
   */
  readonly check?: (document: StoredRecord) => T;
}

/** Implements `RecordStore` of `lib/pod/ports.ts`. Calls for one id take effect in the order they were made. */
export class FileRecordStore<T extends StoredRecord> {
  readonly #options: RecordStoreOptions<T>;
  readonly #lock = new KeyedLock();

  constructor(options: RecordStoreOptions<T>) {
    this.#options = options;
  }

  /**
   * Every readable record, ordered by id. Removes temporary files that a crash left; renames to `*.broken`,
   * with a warning, what is not a record of this store. Call it once, before the first `put`.
   */
  async loadAll(): Promise<T[]> {
    const { directory } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const names = await readdir(directory, { withFileTypes: true });
    const records: T[] = [];
    const queue = names.values();
    const worker = async (): Promise<void> => {
      for (const entry of queue) {
        if (entry.name.endsWith(temporarySuffix)) await unlinkGone(join(directory, entry.name));
        else if (entry.name.includes(brokenSuffix)) continue;
        else {
          const record = await this.#load(entry.name, entry.isFile());
          if (record !== undefined) records.push(record);
        }
      }
    };
    await Promise.all(Array.from({ length: loadConcurrency }, worker));
    await syncDirectory(directory);
    return records.sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Durable when it resolves. @throws HerkosError `InvalidArgument` for an id that cannot be a file name. */
  async put(record: T): Promise<void> {
    const path = this.#pathOf(record.id);
    const text = JSON.stringify(record);
    if (Buffer.byteLength(text) > recordBytesMax)
      throw new HerkosError(
        'ResourceExhausted',
        `record ${record.id} is bigger than ${String(recordBytesMax)} bytes`,
      );
    if (record.schemaVersion !== this.#options.schemaVersion)
      throw new HerkosError(
        'Internal',
        `record ${record.id} has schema version ${String(record.schemaVersion)}`,
      );
    await this.#lock.run(background(), record.id, async () => {
      try {
        await writeFileAtomic(path, text);
      } catch (error) {
        throw storeError(error, `write ${path}`);
      }
    });
  }

  /** Durable when it resolves; succeeds when there is no such record. */
  async delete(id: string): Promise<void> {
    const path = this.#pathOf(id);
    await this.#lock.run(background(), id, async () => {
      try {
        if (await unlinkGone(path)) await syncDirectory(this.#options.directory);
      } catch (error) {
        throw storeError(error, `remove ${path}`);
      }
    });
  }

  #pathOf(id: string): string {
    return join(this.#options.directory, fileNameOfId(id));
  }

  async #load(name: string, isFile: boolean): Promise<T | undefined> {
    try {
      if (!isFile) throw new Error('it is not a regular file');
      const id = idOfFileName(name);
      if (id === undefined) throw new Error('its name is not that of a record');
      return this.#parse(id, await readBounded(join(this.#options.directory, name)));
    } catch (error) {
      await this.#setAside(name, messageOf(error));
      return undefined;
    }
  }

  #parse(id: string, text: string): T {
    const document: unknown = JSON.parse(text);
    if (!isStoredRecord(document)) throw new Error('it has no id and schema version');
    if (document.id !== id) throw new Error(`it says it is ${document.id}`);
    if (document.schemaVersion !== this.#options.schemaVersion)
      throw new Error(
        `it has schema version ${String(document.schemaVersion)}, this program reads ${String(this.#options.schemaVersion)}`,
      );
    return this.#options.check === undefined ? (document as T) : this.#options.check(document);
  }

  async #setAside(name: string, why: string): Promise<void> {
    const { directory, logger } = this.#options;
    const path = join(directory, name);
    // A random part, because a file of this name may have been set aside before and is evidence too.
    const aside = `${path}${brokenSuffix}-${randomBytes(4).toString('hex')}`;
    try {
      await rename(path, aside);
      logger.warn('a record cannot be read and was set aside', { path, aside, why });
    } catch (error) {
      logger.error('a record cannot be read and could not be set aside', {
        path,
        why,
        error: messageOf(error),
      });
    }
  }
}

function isStoredRecord(value: unknown): value is StoredRecord {
  return (
    typeof value === 'object' &&
    value !== null &&
    'id' in value &&
    typeof value.id === 'string' &&
    'schemaVersion' in value &&
    typeof value.schemaVersion === 'number'
  );
}

async function readBounded(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    if (size > recordBytesMax) throw new Error(`it is ${String(size)} bytes long`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/** True when there was something to remove. */
async function unlinkGone(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

function storeError(error: unknown, doing: string): HerkosError {
  if (isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT'))
    return new HerkosError('ResourceExhausted', `${doing}: the disk is full; make room on it`, {
      cause: error,
    });
  return wrap(error, doing);
}
