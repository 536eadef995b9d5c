import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { imageService, runtimeService } from '#gen/cri/v1/services.js';
import type { Method } from '#gen/cri/v1/services.js';

import type { Context } from '../../../lib/base/context.js';
import { background, underDeadline } from '../../../lib/base/context.js';
import type { HerkosError } from '../../../lib/base/errors.js';
import type { Logger } from '../../../lib/base/logger.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { adminService } from '../../../lib/cri/admin-service.js';
import { v1 } from '../../../lib/cri/api.js';
import { SocketClient } from '../../../lib/cri/client.js';
import { criServices } from '../../../lib/cri/cri-services.js';
import { SocketServer } from '../../../lib/cri/server.js';
import { FakeImages } from '../../fakes/images.js';
import { FakeMachines } from '../../fakes/machines.js';
import { FakeNodeInfo } from '../../fakes/node-info.js';
import { FakeObserver } from '../../fakes/observer.js';
import { FakePods } from '../../fakes/pods.js';

/** Longer than any call of these tests takes, short enough to end a hung one. */
const callTimeoutMs = 60_000;

/** A real server on a socket of its own, a real client on it, and fakes behind the handlers. */
export class Harness {
  readonly pods = new FakePods();
  readonly images = new FakeImages();
  readonly machines = new FakeMachines();
  readonly node = new FakeNodeInfo();
  readonly observer = new FakeObserver();
  readonly rpc = { ...runtimeService, ...imageService };

  private constructor(
    readonly directory: string,
    readonly socketPath: string,
  ) {
    this.client = new SocketClient(socketPath);
  }

  readonly client: SocketClient;
  #server: SocketServer | undefined;

  static async start(log: Logger = silentLogger): Promise<Harness> {
    const directory = await mkdtemp(join(tmpdir(), 'herkos-cri-'));
    const harness = new Harness(directory, join(directory, 'run', 'cri.sock'));
    const { pods, images, machines, node, observer } = harness;
    const parts = { pods, images, node, log, observer };
    const services = [...criServices(parts), adminService(parts, machines)];
    harness.#server = await SocketServer.listen(background(), harness.socketPath, services, log);
    return harness;
  }

  async stop(): Promise<void> {
    this.client.close();
    this.#server?.destroy();
    await rm(this.directory, { recursive: true });
  }

  get server(): SocketServer {
    if (this.#server === undefined) throw new Error('the server has not started');
    return this.#server;
  }

  async call<RequestSent, Response>(
    method: Method<RequestSent, unknown, unknown, Response, false, false>,
    request: RequestSent,
    ctx: Context = background(),
  ): Promise<Response> {
    return underDeadline(ctx, callTimeoutMs, method.path, (bounded) =>
      this.client.call(bounded, method, request),
    );
  }

  /** The error of a call that must fail. */
  async failure<RequestSent>(
    method: Method<RequestSent, unknown, unknown, unknown, false, false>,
    request: RequestSent,
  ): Promise<HerkosError> {
    try {
      await this.call(method, request);
    } catch (error) {
      return error as HerkosError;
    }
    throw new Error(`${method.path} should have failed`);
  }

  async sandbox(name = 'pod', config: Parameters<typeof sandboxConfig>[1] = {}): Promise<string> {
    const { podSandboxId } = await this.call(this.rpc.runPodSandbox, { config: sandboxConfig(name, config) });
    return podSandboxId;
  }

  async container(
    podSandboxId: string,
    config: ReturnType<typeof containerConfig> = containerConfig(),
  ): Promise<string> {
    const { containerId } = await this.call(this.rpc.createContainer, { podSandboxId, config });
    return containerId;
  }
}

type RunRequest = Parameters<typeof runtimeService.runPodSandbox.requestSerialize>[0];
type CreateRequest = Parameters<typeof runtimeService.createContainer.requestSerialize>[0];

export function sandboxConfig(
  name: string,
  more: Partial<NonNullable<RunRequest['config']>> = {},
): NonNullable<RunRequest['config']> {
  return {
    metadata: { name, namespace: 'default', uid: `uid-${name}`, attempt: 3 },
    hostname: name,
    logDirectory: `/var/log/pods/${name}`,
    labels: { app: name, __proto__x: 'kept' },
    annotations: { note: `of ${name}` },
    linux: {
      cgroupParent: '/kubepods/pod1',
      securityContext: { namespaceOptions: { pid: v1.NamespaceMode.CONTAINER } },
    },
    ...more,
  };
}

export function containerConfig(
  more: Partial<NonNullable<CreateRequest['config']>> = {},
): NonNullable<CreateRequest['config']> {
  return {
    metadata: { name: 'app', attempt: 1 },
    image: { image: 'example.org/app:1', userSpecifiedImage: 'app:1' },
    command: ['/bin/app'],
    logPath: 'app/1.log',
    labels: { tier: 'web' },
    annotations: { 'io.kubernetes.container.hash': 'abc' },
    ...more,
  };
}

/** A value that no enum of the API has, as a newer client could send it. */
export function unknownValue(value: number): never {
  return value as never;
}
