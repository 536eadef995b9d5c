import { existsSync } from 'node:fs';

import { messageOf } from '../../lib/base/errors.js';
import type { Logger } from '../../lib/base/logger.js';
import type { Config } from '../../lib/config/load.js';
import type { NodeInfo, RuntimeHealth } from '../../lib/cri/ports.js';
import type { AcceleratorVerdict } from '../../lib/vm/ports.js';
import { version } from './version.js';

/** sd_booted(3): this directory is there exactly where systemd runs the machine. */
const systemdMark = '/run/systemd/system';

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

  /** Takes the result of the proof, whatever it is. */
  async learn(proof: Promise<AcceleratorVerdict>, log: Logger): Promise<void> {
    try {
      const verdict = await proof;
      this.#verdict = verdict;
      this.#health = { ready: true, reason: '', message: '' };
      const tell = verdict.accelerator === 'kvm' ? log.info.bind(log) : log.warn.bind(log);
      tell('virtual machines can run', { accelerator: verdict.accelerator, why: verdict.why });
    } catch (error) {
      this.#health = { ready: false, reason: 'NoAccelerator', message: messageOf(error) };
      log.error('virtual machines cannot run', { error: messageOf(error) });
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
}
