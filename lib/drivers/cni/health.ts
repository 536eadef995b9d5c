/** NetworkReady: is there a configuration, are its plugins there, and do they say that they work. */
import type { Context } from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import type { NetworkStatus } from '../../pod/ports.js';
import type { NetworkConfig } from '../../wire/cni/conflist.js';
import { pluginInput } from '../../wire/cni/invocation.js';
import { isAtLeast } from '../../wire/cni/version.js';
import type { ConfigSource, LoadedConfig } from './config-source.js';
import type { PluginRunner } from './plugin-runner.js';
import { PluginError, cniCodes } from './plugin-runner.js';

export const notReadyReason = 'NetworkPluginNotReady';

/** STATUS runs a process per plugin; the kubelet asks every few seconds. */
const statusKeptMs = 5_000;
const sinceVersion = '1.1.0';

const ready: NetworkStatus = { ready: true, reason: '', message: '' };

export class NetworkHealth {
  readonly #source: ConfigSource;
  readonly #runner: PluginRunner;
  #kept:
    { readonly config: NetworkConfig; readonly status: NetworkStatus; readonly untilMs: number } | undefined;

  constructor(source: ConfigSource, runner: PluginRunner) {
    this.#source = source;
    this.#runner = runner;
  }

  async status(ctx: Context): Promise<NetworkStatus> {
    try {
      const loaded = await this.#source.current();
      for (const type of pluginTypes(loaded.config)) await this.#runner.find(type);
      if (!isAtLeast(loaded.config.cniVersion, sinceVersion)) return ready;
      return await this.#pluginStatus(ctx, loaded);
    } catch (error) {
      const reason = (error instanceof HerkosError ? error.reason : undefined) ?? notReadyReason;
      return { ready: false, reason, message: messageOf(error) };
    }
  }

  async #pluginStatus(ctx: Context, { config, path }: LoadedConfig): Promise<NetworkStatus> {
    // The monotonic clock: a step of the wall clock must not freeze the verdict.
    if (this.#kept?.config === config && performance.now() < this.#kept.untilMs) return this.#kept.status;
    const status = await this.#askPlugins(ctx, config, path);
    this.#kept = { config, status, untilMs: performance.now() + statusKeptMs };
    return status;
  }

  async #askPlugins(ctx: Context, config: NetworkConfig, path: string): Promise<NetworkStatus> {
    for (const plugin of config.plugins) {
      const target = { containerId: 'status', netnsPath: '', ifName: '', cniArgs: '' };
      try {
        await this.#runner.run(ctx, 'STATUS', plugin.type, target, pluginInput(config, plugin, {}));
      } catch (error) {
        if (isUnknownCommand(error)) continue;
        return { ready: false, reason: notReadyReason, message: `${path}: ${messageOf(error)}` };
      }
    }
    return ready;
  }
}

/** A plugin from before 1.1 does not know STATUS and GC, or the version itself. */
export function isUnknownCommand(error: unknown): boolean {
  return (
    error instanceof PluginError &&
    (error.code === cniCodes.invalidEnvironment || error.code === cniCodes.incompatibleVersion)
  );
}

/** The plugins of the chain and the address managers they delegate to. */
function pluginTypes(config: NetworkConfig): string[] {
  return config.plugins.flatMap(({ type, raw }) => {
    const ipam: unknown = raw['ipam'];
    const delegate: unknown =
      typeof ipam === 'object' && ipam !== null && 'type' in ipam ? ipam.type : undefined;
    return typeof delegate === 'string' && /^[\w.+-]+$/.test(delegate) ? [type, delegate] : [type];
  });
}
