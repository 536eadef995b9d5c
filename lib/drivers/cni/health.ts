/** NetworkReady: is there a configuration, are its plugins there, and do they say that they work. */
import type { Context } from '../../base/context.js';
import { background, underDeadline } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
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

/** What a caller waits for the plugins: the state of the runtime, in the same answer, must not wait for a slow one. */
const patienceMs = 2_000;

const ready: NetworkStatus = { ready: true, reason: '', message: '' };

interface Kept {
  readonly config: NetworkConfig;
  readonly status: NetworkStatus;
  readonly untilMs: number;
}

interface Asking {
  readonly config: NetworkConfig;
  readonly status: Promise<NetworkStatus>;
}

export class NetworkHealth {
  readonly #source: ConfigSource;
  readonly #runner: PluginRunner;
  #kept: Kept | undefined;
  #asking: Asking | undefined;

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

  async #pluginStatus(ctx: Context, loaded: LoadedConfig): Promise<NetworkStatus> {
    const kept = this.#kept?.config === loaded.config ? this.#kept : undefined;
    // The monotonic clock: a step of the wall clock must not freeze the verdict.
    if (kept !== undefined && performance.now() < kept.untilMs) return kept.status;
    const asking = this.#ask(loaded);
    try {
      return await underDeadline(ctx, patienceMs, 'asking the plugins', () => asking);
    } catch (error) {
      if (classOf(error) !== 'DeadlineExceeded' || ctx.signal.aborted) throw error;
      const message = `${loaded.path}: the plugins have not said yet whether they are ready (STATUS)`;
      return kept?.status ?? { ready: false, reason: notReadyReason, message };
    }
  }

  /** One round of questions at a time, for everybody: a caller that leaves must not fail it for the others. */
  async #ask({ config, path }: LoadedConfig): Promise<NetworkStatus> {
    if (this.#asking?.config === config) return this.#asking.status;
    const status = this.#askPlugins(background(), config, path);
    const asking = { config, status };
    this.#asking = asking;
    try {
      const verdict = await status;
      this.#kept = { config, status: verdict, untilMs: performance.now() + statusKeptMs };
      return verdict;
    } finally {
      if (this.#asking === asking) this.#asking = undefined;
    }
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
