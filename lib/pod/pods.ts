/** The pod room as the CRI handlers see it (`Pods` of lib/cri/ports.ts); one method for each verb's file. */
import type { Context } from '../base/context.js';
import type { ContainerConfig, ContainerRecord } from '../model/container.js';
import { isContainerListed } from '../model/container-state.js';
import type { LinuxResources } from '../model/resources.js';
import type { SandboxConfig, SandboxRecord } from '../model/sandbox.js';
import { isSandboxListed } from '../model/sandbox-state.js';
import { createContainer } from './create-container.js';
import { describeSandbox } from './describe-sandbox.js';
import type { PodListener } from './events.js';
import { execSync } from './exec-sync.js';
import type { GuestExecResult, NetworkStatus } from './ports.js';
import { load, recover } from './recover.js';
import { removeContainer } from './remove-container.js';
import { removeSandbox } from './remove-sandbox.js';
import { reopenLog } from './reopen-log.js';
import type { PodParts } from './room.js';
import { PodRoom } from './room.js';
import { runSandbox } from './run-sandbox.js';
import { startContainer } from './start-container.js';
import { stopContainer } from './stop-container.js';
import { closePump, stopSandbox } from './stop-sandbox.js';
import { updateContainer } from './update-container.js';
import type { SandboxChange } from './update-sandbox.js';
import { updateSandbox } from './update-sandbox.js';

export class PodService {
  readonly #room: PodRoom;

  constructor(parts: PodParts) {
    this.#room = new PodRoom(parts);
  }

  /** Reads the records; lists can be answered after it, and the image room may collect its garbage. Call it first. */
  async load(): Promise<void> {
    await load(this.#room);
  }

  /**
   * Adopts what lives, finishes or undoes what was half done, sweeps the rest. Requests may be served
   * meanwhile, and before: each waits for the pods it names, new pods for the sweep.
   */
  async recover(): Promise<void> {
    await recover(this.#room);
  }

  /** Lets go of all guests and logs; pods and containers go on. */
  async close(): Promise<void> {
    this.#room.life.cancel();
    await Promise.all(
      this.#room.registry.allSandboxes().map(async (entry) => {
        await entry.live?.endLink();
        await Promise.all([...entry.containers].map((container) => closePump(container)));
      }),
    );
  }

  /** @returns a function that ends the subscription */
  listen(listener: PodListener): () => void {
    return this.#room.events.listen(listener);
  }

  async runSandbox(ctx: Context, config: SandboxConfig, runtimeHandler: string): Promise<SandboxRecord> {
    return runSandbox(this.#room, ctx, config, runtimeHandler);
  }

  async stopSandbox(ctx: Context, id: string): Promise<void> {
    await stopSandbox(this.#room, ctx, id);
  }

  async removeSandbox(ctx: Context, id: string): Promise<void> {
    await removeSandbox(this.#room, ctx, id);
  }

  async updateSandbox(ctx: Context, id: string, change: SandboxChange): Promise<void> {
    await updateSandbox(this.#room, ctx, id, change);
  }

  sandbox(id: string): SandboxRecord {
    return this.#room.registry.sandbox(id).record;
  }

  sandboxes(): readonly SandboxRecord[] {
    return this.#room.registry
      .allSandboxes()
      .map((entry) => entry.record)
      .filter(isSandboxListed);
  }

  async describeSandbox(id: string): Promise<Readonly<Record<string, unknown>>> {
    return Promise.resolve(describeSandbox(this.#room, id));
  }

  async createContainer(ctx: Context, sandboxId: string, config: ContainerConfig): Promise<ContainerRecord> {
    return createContainer(this.#room, ctx, sandboxId, config);
  }

  async startContainer(ctx: Context, id: string): Promise<void> {
    await startContainer(this.#room, ctx, id);
  }

  async stopContainer(ctx: Context, id: string, timeoutSeconds: number): Promise<void> {
    await stopContainer(this.#room, ctx, id, timeoutSeconds);
  }

  async removeContainer(ctx: Context, id: string): Promise<void> {
    await removeContainer(this.#room, ctx, id);
  }

  async updateContainer(ctx: Context, id: string, change: LinuxResources): Promise<void> {
    await updateContainer(this.#room, ctx, id, change);
  }

  container(id: string): ContainerRecord {
    return this.#room.registry.container(id).record;
  }

  containers(): readonly ContainerRecord[] {
    return this.#room.registry
      .allContainers()
      .map((entry) => entry.record)
      .filter(isContainerListed);
  }

  async reopenLog(ctx: Context, id: string): Promise<void> {
    await reopenLog(this.#room, ctx, id);
  }

  async execSync(
    ctx: Context,
    id: string,
    command: readonly string[],
    timeoutSeconds: number,
  ): Promise<GuestExecResult> {
    return execSync(this.#room, ctx, id, command, timeoutSeconds);
  }

  async networkStatus(ctx: Context): Promise<NetworkStatus> {
    return this.#room.parts.network.status(ctx);
  }
}
