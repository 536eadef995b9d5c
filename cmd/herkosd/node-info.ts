import { existsSync } from 'node:fs';

import type { Context } from '../../lib/base/context.js';
import { sleep, throwIfDone } from '../../lib/base/context.js';
import { messageOf } from '../../lib/base/errors.js';
import type { Logger } from '../../lib/base/logger.js';
import type { Config } from '../../lib/config/load.js';
import type { NodeInfo, RuntimeHealth } from '../../lib/cri/ports.js';
import type { AcceleratorVerdict } from '../../lib/vm/ports.js';
import { version } from './version.js';

/** sd_booted(3): this directory is there exactly where systemd runs the machine. */
const systemdMark = '/run/systemd/system';

/** Between two tries; each may boot a guest. */
const provingDelay = { firstMs: 10_000, mostMs: 60_000 };

/** What this node says of itself; ready once it is proven that VMs can run here. */
export class HerkosNodeInfo implements NodeInfo {
  readonly version = version;
  readonly cgroupDriver: 'systemd' | 'cgroupfs';
  readonly #config: Config;
  #health: RuntimeHealth = {
    ready: false,
    reason: 'RuntimeStarting',
    message: 'finding out which accelerator works on this machine',
  };
  #verdict: AcceleratorVerdict | undefined;

  constructor(config: Config) {
    this.#config = config;
    const { cgroup_driver: chosen } = config.node;
    const found = existsSync(systemdMark) ? 'systemd' : 'cgroupfs';
    this.cgroupDriver = chosen === 'auto' ? found : chosen;
  }

  /**
   * Resolves when it is proven that VMs can run, or when the context ends. What stood in the way may pass, as a
   * device or a program that is missing while the node starts does, so the proof is tried again.
   */
  async learn(
    ctx: Context,
    prove: (ctx: Context) => Promise<AcceleratorVerdict>,
    log: Logger,
    { firstMs, mostMs }: typeof provingDelay = provingDelay,
  ): Promise<void> {
    for (let delayMs = firstMs; ; delayMs = Math.min(2 * delayMs, mostMs)) {
      try {
        throwIfDone(ctx);
        this.#take(await prove(ctx), log);
        return;
      } catch (error) {
        if (ctx.signal.aborted) return;
        const message = messageOf(error);
        // Once for each cause, not at each try.
        if (message !== this.#health.message) log.error('virtual machines cannot run', { error: message });
        this.#health = { ready: false, reason: 'NoAccelerator', message };
      }
      await sleep(ctx, delayMs).catch(() => undefined);
    }
  }

  async health(): Promise<RuntimeHealth> {
    return Promise.resolve(this.#health);
  }

  async describe(): Promise<Readonly<Record<string, unknown>>> {
    return Promise.resolve({
      // critest and people look for the state directory by this name.
      stateDir: this.#config.node.state_dir,
      accelerator: this.#verdict?.accelerator ?? '',
      acceleratorWhy: this.#verdict?.why ?? '',
      config: this.#config,
    });
  }

  #take(verdict: AcceleratorVerdict, log: Logger): void {
    this.#verdict = verdict;
    this.#health = { ready: true, reason: '', message: '' };
    const { accelerator, why } = verdict;
    const tell = accelerator === 'kvm' ? log.info.bind(log) : log.warn.bind(log);
    tell('virtual machines can run', { accelerator, why });
  }
}
