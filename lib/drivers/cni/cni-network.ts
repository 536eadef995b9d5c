import type { Context } from '../../base/context.js';
import { background, underDeadline } from '../../base/context.js';
import { classOf, messageOf, wrap } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import type { Logger } from '../../base/logger.js';
import { allOrError, withRollback } from '../../base/rollback.js';
import type { NetworkAttachment } from '../../model/network.js';
import type { NetworkRequest, NetworkStatus, PodNetwork } from '../../pod/ports.js';
import type { LinkState } from '../../wire/cni/link-state.js';
import { takesCapability } from '../../wire/cni/conflist.js';
import { attachmentFrom } from '../../wire/cni/guest-interface.js';
import type { CapabilityArgs } from '../../wire/cni/invocation.js';
import { formatCniArgs, pluginInput, portMappingsCapability } from '../../wire/cni/invocation.js';
import { normaliseResult } from '../../wire/cni/result.js';
import { isAtLeast } from '../../wire/cni/version.js';
import type { Attachment } from './attachment-cache.js';
import { AttachmentCache } from './attachment-cache.js';
import { addChain, deleteChain } from './chain.js';
import { ConfigSource } from './config-source.js';
import { NetworkHealth, isUnknownCommand } from './health.js';
import { checkRedirectable, ipBatch, joinDevices, netnsExists, readLink } from './link.js';
import { endPluginsOf } from './orphan-plugins.js';
import { PluginRunner } from './plugin-runner.js';
import type { CniSettings } from './settings.js';
import { needsStandIn, withStandIn } from './stand-in.js';

/** Name of the pod's interface: in the namespace for the plugins, in the guest for the containers. */
export const podIfName = 'eth0';

/** What the kernel gives a tap; the guest keeps to the MTU of the pod's interface when that is smaller. */
const tapMtu = 1500;

/** Undoing goes on when the request that failed is over, but not for ever. */
const undoTimeoutMs = 60_000;

/** The pod's network by CNI plugins, handed to the VM's tap. */
export class CniNetwork implements PodNetwork {
  readonly #exec: Exec;
  readonly #settings: CniSettings;
  readonly #logger: Logger;
  readonly #source: ConfigSource;
  readonly #runner: PluginRunner;
  readonly #cache: AttachmentCache;
  readonly #health: NetworkHealth;
  readonly #locks = new KeyedLock();

  constructor(exec: Exec, settings: CniSettings, logger: Logger) {
    this.#exec = exec;
    this.#settings = settings;
    this.#logger = logger;
    this.#source = new ConfigSource(settings, logger);
    this.#runner = new PluginRunner(exec, settings);
    this.#cache = new AttachmentCache(settings.stateDir, logger);
    this.#health = new NetworkHealth(this.#source, this.#runner);
  }

  async attach(ctx: Context, request: NetworkRequest): Promise<NetworkAttachment> {
    return this.#locks.run(ctx, request.sandboxId, async () => {
      await this.#detach(ctx, request.sandboxId, request.netnsPath);
      const intent = await this.#intentOf(request);
      return withRollback(async (undo) => {
        undo.push('give the network back', () =>
          underDeadline(background(), undoTimeoutMs, 'giving the network back', (step) =>
            this.#detach(step, request.sandboxId, request.netnsPath),
          ),
        );
        await this.#cache.put(intent);
        const result = await addChain(ctx, this.#runner, callOf(intent, request.netnsPath));
        const [link] = await allOrError([
          this.#leadToTap(ctx, request),
          this.#cache.put({ ...intent, phase: 'added', result }),
        ]);
        return attachmentFrom(normaliseResult(result, 'the CNI result'), link);
      });
    });
  }

  async detachGone(ctx: Context, request: NetworkRequest): Promise<void> {
    await this.#locks.run(ctx, request.sandboxId, () =>
      this.#detach(ctx, request.sandboxId, request.netnsPath),
    );
  }

  /**
   * Call it before the namespaces of unknown sandboxes are swept: a plugin that was killed half-way
   * finds its traces in there. An attachment that cannot be given back now is kept for the next call.
   */
  async collectGarbage(ctx: Context, knownSandboxIds: ReadonlySet<string>): Promise<void> {
    const errors: unknown[] = [];
    for (const id of await this.#cache.list()) {
      if (knownSandboxIds.has(id)) continue;
      try {
        await this.#locks.run(ctx, id, () => this.#detach(ctx, id));
        this.#logger.info('gave back the network of an unknown sandbox', { sandbox: id });
      } catch (error) {
        this.#logger.warn('cannot give back the network of an unknown sandbox', {
          sandbox: id,
          error: messageOf(error),
        });
        errors.push(error);
      }
    }
    await this.#pluginGarbage(ctx);
    if (errors.length > 0)
      throw wrap(errors[0], `${String(errors.length)} network attachments are left over`);
  }

  async status(ctx: Context): Promise<NetworkStatus> {
    return this.#health.status(ctx);
  }

  /** What the plugins made. Its frames are led to the tap while it is read, which is where a pod's start waits. */
  async #leadToTap(ctx: Context, { netnsPath, tap }: NetworkRequest): Promise<LinkState> {
    const [reading, joining] = await Promise.allSettled([
      readLink(ctx, this.#exec, netnsPath, podIfName),
      joinDevices(ctx, this.#exec, netnsPath, podIfName, tap),
    ]);
    // Why a device does not suit says more than what failed with it.
    if (reading.status === 'rejected') throw reading.reason;
    const link = reading.value;
    checkRedirectable(link);
    if (joining.status === 'rejected') throw joining.reason;
    if (link.mtu > tapMtu)
      await ipBatch(ctx, this.#exec, netnsPath, [`link set dev ${tap} mtu ${String(link.mtu)}`]);
    return link;
  }

  async #intentOf(request: NetworkRequest): Promise<Attachment> {
    const { config, path } = await this.#source.current();
    const portMappings = portMappingsCapability(request.portMappings);
    if (portMappings.length > 0 && !takesCapability(config, 'portMappings'))
      this.#logger.warn(
        'the network configuration has no plugin for published ports; they may not be reachable',
        {
          sandbox: request.sandboxId,
          path,
        },
      );
    const { name, namespace, uid } = request.metadata;
    return {
      sandboxId: request.sandboxId,
      phase: 'adding',
      ifName: podIfName,
      netnsPath: request.netnsPath,
      cniArgs: formatCniArgs({
        IgnoreUnknown: '1',
        K8S_POD_NAMESPACE: namespace,
        K8S_POD_NAME: name,
        K8S_POD_INFRA_CONTAINER_ID: request.sandboxId,
        K8S_POD_UID: uid,
      }),
      capabilityArgs: portMappings.length > 0 ? { portMappings } : {},
      config,
    };
  }

  /** Without a cached attachment nothing was ever asked for, so there is nothing to give back. */
  async #detach(ctx: Context, sandboxId: string, netnsPath?: string): Promise<void> {
    const cached = await this.#cached(sandboxId, netnsPath ?? '');
    if (cached === undefined) return;
    if (cached.phase === 'adding') {
      const ended = await endPluginsOf(ctx, sandboxId);
      if (ended > 0) this.#logger.warn('ended plugins of an unfinished ADD', { sandbox: sandboxId, ended });
    }
    const path = netnsPath ?? cached.netnsPath;
    if (await netnsExists(path)) await this.#delete(ctx, cached, path);
    else if (needsStandIn(cached))
      await withStandIn(
        ctx,
        { ...this.#settings, exec: this.#exec, logger: this.#logger },
        cached,
        (standIn) => this.#delete(ctx, cached, standIn),
      );
    else await this.#delete(ctx, cached, '');
    await this.#cache.delete(sandboxId);
  }

  /** A cached attachment that cannot be read is set aside; the configuration in force then says what to delete. */
  async #cached(sandboxId: string, netnsPath: string): Promise<Attachment | undefined> {
    try {
      return await this.#cache.get(sandboxId);
    } catch (error) {
      if (classOf(error) !== 'DataLoss') throw error;
      const { config } = await this.#source.current();
      const aside = await this.#cache.setAside(sandboxId);
      this.#logger.warn('deleting by the configuration in force', { error: messageOf(error), aside });
      const substitute: Attachment = {
        sandboxId,
        phase: 'adding',
        ifName: podIfName,
        netnsPath,
        cniArgs: 'IgnoreUnknown=1',
        capabilityArgs: {},
        config,
      };
      await this.#cache.put(substitute);
      return substitute;
    }
  }

  async #delete(ctx: Context, cached: Attachment, netnsPath: string): Promise<void> {
    await deleteChain(ctx, this.#runner, callOf(cached, netnsPath), cached.result);
  }

  /** CNI GC (since 1.1): the plugins drop what belongs to no attachment that we name. */
  async #pluginGarbage(ctx: Context): Promise<void> {
    if (!this.#settings.soleRuntime) return;
    const { config } = await this.#source.current();
    if (!isAtLeast(config.cniVersion, '1.1.0') || config.disableGc) return;
    const valid = await this.#validAttachments(config.name);
    for (const plugin of config.plugins) {
      const target = { containerId: 'gc', netnsPath: '', ifName: '', cniArgs: '' };
      const input = pluginInput(config, plugin, {}, { 'cni.dev/valid-attachments': valid });
      try {
        await this.#runner.run(ctx, 'GC', plugin.type, target, input);
      } catch (error) {
        if (!isUnknownCommand(error))
          this.#logger.warn('a CNI plugin cannot collect garbage', { error: messageOf(error) });
      }
    }
  }

  async #validAttachments(network: string): Promise<{ containerID: string; ifname: string }[]> {
    const valid: { containerID: string; ifname: string }[] = [];
    for (const id of await this.#cache.list()) {
      const attachment = await this.#cache.get(id);
      if (attachment?.config.name === network) valid.push({ containerID: id, ifname: attachment.ifName });
    }
    return valid;
  }
}

function callOf(
  attachment: Attachment,
  netnsPath: string,
): {
  config: Attachment['config'];
  capabilityArgs: CapabilityArgs;
  target: { containerId: string; netnsPath: string; ifName: string; cniArgs: string };
} {
  return {
    config: attachment.config,
    capabilityArgs: attachment.capabilityArgs,
    target: {
      containerId: attachment.sandboxId,
      netnsPath,
      ifName: attachment.ifName,
      cniArgs: attachment.cniArgs,
    },
  };
}
