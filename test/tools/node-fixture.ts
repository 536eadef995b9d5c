/** A daemon, a registry with the example image, and the usual verbs: what tests of a whole node share. */
import { join } from 'node:path';

import { runtime } from '#gen/cri/v1/api.js';

import { pushExampleImage } from './example-image.js';
import type { HerkosdOptions } from './herkosd-process.js';
import { HerkosdProcess } from './herkosd-process.js';
import { containerConfig, sandboxConfig } from './pod-config.js';
import { RegistryProcess } from './registry-process.js';

export const sandboxStates = runtime.v1.PodSandboxState;
export const containerStates = runtime.v1.ContainerState;

type ContainerProperties = runtime.v1.ContainerConfig.$Properties;

export class NodeFixture {
  readonly registry: RegistryProcess;
  readonly daemon: HerkosdProcess;
  readonly image: string;

  private constructor(registry: RegistryProcess, daemon: HerkosdProcess, image: string) {
    this.registry = registry;
    this.daemon = daemon;
    this.image = image;
  }

  static async start(options: HerkosdOptions = {}): Promise<NodeFixture> {
    const registry = await RegistryProcess.start();
    let daemon: HerkosdProcess | undefined;
    try {
      const image = await pushExampleImage(registry);
      daemon = await HerkosdProcess.start(options);
      const fixture = new NodeFixture(registry, daemon, image);
      await daemon.client.image('pullImage', { image: { image } });
      return fixture;
    } catch (error) {
      await daemon?.cleanUp();
      await registry.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    try {
      await this.daemon.cleanUp();
    } finally {
      await this.registry.stop();
    }
  }

  logDirectory(pod: string): string {
    return join(this.daemon.directory, 'logs', pod);
  }

  async runSandbox(name: string, logDirectory = this.logDirectory(name)): Promise<string> {
    const config = sandboxConfig({ name, logDirectory });
    return (await this.daemon.client.runtime('runPodSandbox', { config })).podSandboxId;
  }

  async createContainer(
    podSandboxId: string,
    name: string,
    command: readonly string[] = ['sleep', '3600'],
    more: ContainerProperties = {},
  ): Promise<string> {
    const config = containerConfig(name, this.image, command, more);
    const request = { podSandboxId, config, sandboxConfig: sandboxConfig() };
    return (await this.daemon.client.runtime('createContainer', request)).containerId;
  }

  async startContainer(
    podSandboxId: string,
    name: string,
    command?: readonly string[],
    more?: ContainerProperties,
  ): Promise<string> {
    const containerId = await this.createContainer(podSandboxId, name, command, more);
    await this.daemon.client.runtime('startContainer', { containerId });
    return containerId;
  }

  /** Standard output of a command in a container. @throws when it fails */
  async exec(containerId: string, ...cmd: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.daemon.client.runtime('execSync', { containerId, cmd });
    if (exitCode !== 0)
      throw new Error(`${cmd.join(' ')}: ${String(exitCode)} ${Buffer.from(stderr).toString()}`);
    return Buffer.from(stdout).toString();
  }

  async containerStatus(containerId: string): Promise<runtime.v1.ContainerStatus.$Properties> {
    const { status } = await this.daemon.client.runtime('containerStatus', { containerId });
    if (status === null || status === undefined) throw new Error('a status without status');
    return status;
  }

  async isReady(podSandboxId: string): Promise<boolean> {
    const { status } = await this.daemon.client.runtime('podSandboxStatus', { podSandboxId });
    return status?.state === sandboxStates.SANDBOX_READY;
  }

  /** Process ids of the daemon's virtual machines. */
  async vmPids(): Promise<number[]> {
    const lines = await this.daemon.leftovers();
    return lines.flatMap((line) => {
      const match = /^process (\d+)/.exec(line);
      return match === null ? [] : [Number(match[1])];
    });
  }
}
