import { mkdir, readFile, readdir, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';

import { syncDirectory, temporarySuffix, writeFileAtomic } from '../../base/atomic-file.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import { isId } from '../../base/ids.js';
import type { Logger } from '../../base/logger.js';
import type { NetworkConfig } from '../../wire/cni/conflist.js';
import { formatNetworkConfig, fromList } from '../../wire/cni/conflist.js';
import type { CapabilityArgs } from '../../wire/cni/invocation.js';
import type { JsonObject } from '../../wire/cni/json.js';
import { asObject, bad, parseJsonObject, stringAt } from '../../wire/cni/json.js';

/**
 * All that DEL needs, whatever became of the configuration and of the daemon. It is written with phase
 * `adding` before the first plugin runs, and with the result when the last one is done.
 */
export interface Attachment {
  readonly sandboxId: string;
  readonly phase: 'adding' | 'added';
  readonly ifName: string;
  readonly netnsPath: string;
  readonly cniArgs: string;
  readonly capabilityArgs: CapabilityArgs;
  readonly config: NetworkConfig;
  /** As the last plugin printed it. */
  readonly result?: JsonObject;
}

const kind = 'herkos.cni.attachment';
const schemaVersion = 1;

/** One JSON file per sandbox; a person can read it. */
export class AttachmentCache {
  readonly #directory: string;
  readonly #logger: Logger;

  constructor(stateDir: string, logger: Logger) {
    this.#directory = join(stateDir, 'attachments');
    this.#logger = logger;
  }

  /** Durable when it resolves. */
  async put(attachment: Attachment): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const { config, ...rest } = attachment;
    const body = { kind, schemaVersion, ...rest, config: formatNetworkConfig(config) };
    await writeFileAtomic(this.#pathOf(attachment.sandboxId), `${JSON.stringify(body, undefined, 1)}\n`);
  }

  /** @throws HerkosError `DataLoss` when the file cannot be read as an attachment */
  async get(sandboxId: string): Promise<Attachment | undefined> {
    const path = this.#pathOf(sandboxId);
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
    try {
      return attachmentFrom(parseJsonObject(text, path), sandboxId, path);
    } catch (error) {
      throw new HerkosError('DataLoss', `the cached network attachment is broken: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Succeeds when there is none. */
  async delete(sandboxId: string): Promise<void> {
    try {
      await unlink(this.#pathOf(sandboxId));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return;
      throw error;
    }
    await syncDirectory(this.#directory);
  }

  /** Renames a broken file, for people to look at; returns its new path. */
  async setAside(sandboxId: string): Promise<string> {
    const aside = `${this.#pathOf(sandboxId)}.broken`;
    await rename(this.#pathOf(sandboxId), aside);
    return aside;
  }

  /** Ids of all cached attachments; half-written files of a crash are removed on the way. */
  async list(): Promise<string[]> {
    let names: string[];
    try {
      names = await readdir(this.#directory);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw error;
    }
    for (const name of names.filter((candidate) => candidate.endsWith(temporarySuffix)))
      await this.#removeLeftover(join(this.#directory, name));
    return names.map((name) => name.replace(/\.json$/, '')).filter(isId);
  }

  /** A temporary file that is older than this process belongs to no write of ours. */
  async #removeLeftover(path: string): Promise<void> {
    try {
      if ((await stat(path)).mtimeMs >= performance.timeOrigin) return;
      await unlink(path);
      this.#logger.warn('removed a half-written network attachment', { path });
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }

  #pathOf(sandboxId: string): string {
    if (!isId(sandboxId)) throw bad(`'${sandboxId}' is not a sandbox id`);
    return join(this.#directory, `${sandboxId}.json`);
  }
}

function attachmentFrom(raw: JsonObject, sandboxId: string, what: string): Attachment {
  if (raw['kind'] !== kind || raw['schemaVersion'] !== schemaVersion)
    throw bad(`${what} is not a ${kind} of version ${String(schemaVersion)}`);
  if (raw['sandboxId'] !== sandboxId) throw bad(`${what} belongs to another sandbox`);
  const phase = raw['phase'];
  if (phase !== 'adding' && phase !== 'added') throw bad(`${what}: phase must be adding or added`);
  return {
    sandboxId,
    phase,
    ifName: text(raw, 'ifName', what),
    netnsPath: text(raw, 'netnsPath', what),
    cniArgs: text(raw, 'cniArgs', what),
    capabilityArgs: asObject(raw['capabilityArgs'], `${what}: capabilityArgs`),
    config: fromList(asObject(raw['config'], `${what}: config`), `${what}: config`),
    ...(raw['result'] === undefined ? {} : { result: asObject(raw['result'], `${what}: result`) }),
  };
}

function text(raw: JsonObject, key: string, what: string): string {
  const value = stringAt(raw, key, what);
  if (value === undefined) throw bad(`${what}: ${key} is missing`);
  return value;
}
