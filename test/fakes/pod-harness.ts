/** A daemon on a world in memory, and short ways to get pods and containers there. */
import { expect } from 'chai';

import { background } from '../../lib/base/context.js';
import { classOf, messageOf } from '../../lib/base/errors.js';
import type { Pods } from '../../lib/cri/ports.js';
import type { ContainerConfig } from '../../lib/model/container.js';
import type { PodDeadlines } from '../../lib/pod/settings.js';
import { rejection } from '../tools/rejection.js';
import { containerConfig, sandboxConfig } from './pod-configs.js';
import type { Incarnation } from './pod-world.js';
import { FakeWorld, testDeadlines } from './pod-world.js';

export class PodHarness {
  private constructor(
    readonly world: FakeWorld,
    readonly daemon: Incarnation,
  ) {}

  static async create(deadlines: Partial<PodDeadlines> = {}): Promise<PodHarness> {
    const world = await FakeWorld.create();
    world.deadlines = {
      ...testDeadlines,
      killMs: 100,
      drainMs: 200,
      stopContainersMs: 200,
      shutdownMs: 100,
      agentLostMs: 300,
      ...deadlines,
    };
    return new PodHarness(world, await world.daemon());
  }

  get pods(): Pods {
    return this.daemon.pods;
  }

  async close(): Promise<void> {
    await this.daemon.pods.close();
    await this.world.remove();
  }

  async run(): Promise<string> {
    const config = sandboxConfig({ logDirectory: this.world.logDirectory });
    return (await this.pods.runSandbox(background(), config, 'herkos')).id;
  }

  async create(sandbox: string, script = 'sleep', changes: Partial<ContainerConfig> = {}): Promise<string> {
    return (await this.pods.createContainer(background(), sandbox, containerConfig(script, changes))).id;
  }

  async start(sandbox: string, script = 'sleep', changes: Partial<ContainerConfig> = {}): Promise<string> {
    const id = await this.create(sandbox, script, changes);
    await this.pods.startContainer(background(), id);
    return id;
  }
}

export async function expectClass(promise: Promise<unknown>, wanted: string, text?: RegExp): Promise<void> {
  const error = await rejection(promise);
  expect(classOf(error)).to.equal(wanted);
  if (text !== undefined) expect(messageOf(error)).to.match(text);
}
