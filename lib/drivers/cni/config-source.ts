import { createHash } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { mkdir, readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { writeFileAtomic } from '../../base/atomic-file.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { NetworkConfig } from '../../wire/cni/conflist.js';
import { parseNetworkConfig } from '../../wire/cni/conflist.js';
import { cniJsonBytesMax } from '../../wire/cni/json.js';
import { defaultConfDir, defaultConfigFile, defaultConflist } from './default-network.js';
import type { CniSettings } from './settings.js';

export interface LoadedConfig {
  readonly path: string;
  readonly config: NetworkConfig;
}

/** Reasons that status() shows and tests name. */
export const configReasons = {
  none: 'NetworkConfigMissing',
  invalid: 'NetworkConfigInvalid',
} as const;

/**
 * The network configuration in force. The directory is looked at on every use, so that a change counts
 * for the next pod; a file is parsed again only when it changed.
 *
 * The first file in lexical order decides, even when it is broken: taking the next one instead would
 * put pods into a network that nobody chose for them.
 */
export class ConfigSource {
  readonly #settings: CniSettings;
  readonly #logger: Logger;
  #parsed: { readonly stamp: string; readonly loaded: LoadedConfig } | undefined;
  #announced = '';

  constructor(settings: CniSettings, logger: Logger) {
    this.#settings = settings;
    this.#logger = logger;
  }

  /** @throws HerkosError `FailedPrecondition`, its reason one of `configReasons` */
  async current(): Promise<LoadedConfig> {
    const path = (await firstConfig(this.#settings.confDir)) ?? (await this.#defaultConfig());
    try {
      const loaded = await this.#load(path);
      if (this.#announced !== path)
        this.#logger.info('network configuration in force', { path, network: loaded.config.name });
      this.#announced = path;
      return loaded;
    } catch (error) {
      throw new HerkosError('FailedPrecondition', `network configuration ${messageOf(error)}`, {
        cause: error,
        reason: configReasons.invalid,
      });
    }
  }

  async #load(path: string): Promise<LoadedConfig> {
    const { mtimeNs, ctimeNs, size, ino } = await stat(path, { bigint: true });
    const stamp = [path, mtimeNs, ctimeNs, size, ino].map(String).join(' ');
    if (this.#parsed?.stamp === stamp) return this.#parsed.loaded;
    if (size > cniJsonBytesMax)
      throw new HerkosError('InvalidArgument', `${path} is larger than ${String(cniJsonBytesMax)} bytes`);
    const loaded = { path, config: parseNetworkConfig(await readFile(path, 'utf8'), path) };
    this.#parsed = { stamp, loaded };
    return loaded;
  }

  async #defaultConfig(): Promise<string> {
    const { confDir, defaultNetwork } = this.#settings;
    if (defaultNetwork === undefined)
      throw new HerkosError(
        'FailedPrecondition',
        `no network configuration in ${confDir}; install a network add-on or allow the default network`,
        { reason: configReasons.none },
      );
    const directory = defaultConfDir(this.#settings);
    const path = join(directory, defaultConfigFile);
    const text = `${JSON.stringify(defaultConflist(defaultNetwork, this.#settings.stateDir), undefined, 2)}\n`;
    if ((await digestOf(path)) === digest(text)) return path;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await writeFileAtomic(path, text);
    this.#logger.info('wrote the built-in single-node network: there is no other configuration', {
      path,
      confDir,
      subnets: defaultNetwork.subnets.join(', '),
    });
    return path;
  }
}

async function firstConfig(directory: string): Promise<string | undefined> {
  let entries: Dirent[];
  try {
    entries = await readdir(directory, { withFileTypes: true });
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw new HerkosError('FailedPrecondition', `cannot read ${directory}: ${messageOf(error)}`, {
      cause: error,
      reason: configReasons.invalid,
    });
  }
  // A directory of such a name is none, as for libcni; a link may lead to a file.
  const files = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
  const first = files.filter((name) => /\.(conflist|conf|json)$/.test(name)).sort()[0];
  return first === undefined ? undefined : join(directory, first);
}

async function digestOf(path: string): Promise<string | undefined> {
  try {
    return digest(await readFile(path, 'utf8'));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
