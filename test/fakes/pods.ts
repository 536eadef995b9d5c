import type { Context } from '../../lib/base/context.js';
import { sleep } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { newId } from '../../lib/base/ids.js';
import type { ExecOutput, Pods } from '../../lib/cri/ports.js';
import type { ContainerConfig, ContainerRecord } from '../../lib/model/container.js';
import { exitOf, hasExited, toExited, toRunning, toStarting } from '../../lib/model/container-state.js';
import { changedResources } from '../../lib/model/resources.js';
import type { LinuxResources } from '../../lib/model/resources.js';
import type { SandboxConfig, SandboxRecord } from '../../lib/model/sandbox.js';
import { isReady, toNotReady, toReady, toStopping } from '../../lib/model/sandbox-state.js';
import { noTime, nowUnixNano } from '../../lib/model/time.js';
import type { NetworkStatus } from '../../lib/pod/ports.js';

const prefixLengthMin = 4;

/** Pods without virtual machines: the states and errors of the real room, from memory. */
export class FakePods implements Pods {
  readonly calls: string[] = [];
  readonly #sandboxes = new Map<string, SandboxRecord>();
  readonly #containers = new Map<string, ContainerRecord>();
  network: NetworkStatus = { ready: true, reason: '', message: '' };
  exec: (ctx: Context, command: readonly string[]) => Promise<ExecOutput> = (_ctx, command) =>
    Promise.resolve({ exitCode: 0, stdout: Buffer.from(command.join(' ')), stderr: Buffer.alloc(0) });
  /** Called before a sandbox is made; a test can wait, fail, or watch the context here. */
  beforeRun: (ctx: Context) => Promise<void> = () => Promise.resolve();

  async runSandbox(ctx: Context, config: SandboxConfig, runtimeHandler: string): Promise<SandboxRecord> {
    this.calls.push('runSandbox');
    await this.beforeRun(ctx);
    const record: SandboxRecord = toReady(
      {
        schemaVersion: 1,
        id: newId(),
        config,
        runtimeHandler,
        createdAt: nowUnixNano(),
        phase: 'creating',
        networkRequested: true,
        timings: [],
      },
      { ips: ['10.1.2.3', 'fd00::3'], interfaces: [] },
      [{ phase: 'vm', ms: 12 }],
    );
    this.#sandboxes.set(record.id, record);
    return record;
  }

  stopSandbox(_ctx: Context, id: string): Promise<void> {
    this.calls.push(`stopSandbox ${id}`);
    const record = this.#sandboxes.get(id);
    if (record === undefined || !isReady(record)) return Promise.resolve();
    for (const container of this.containers()) if (container.sandboxId === id) this.exit(container.id, 137);
    this.#sandboxes.set(id, toNotReady(toStopping(record)));
    return Promise.resolve();
  }

  async removeSandbox(ctx: Context, id: string): Promise<void> {
    this.calls.push(`removeSandbox ${id}`);
    await this.stopSandbox(ctx, id);
    for (const container of this.containers())
      if (container.sandboxId === id) await this.removeContainer(ctx, container.id);
    this.#sandboxes.delete(id);
  }

  sandbox(id: string): SandboxRecord {
    return find(this.#sandboxes, id, 'pod sandbox');
  }

  sandboxes(): readonly SandboxRecord[] {
    return [...this.#sandboxes.values()];
  }

  describeSandbox(id: string): Promise<Readonly<Record<string, unknown>>> {
    return Promise.resolve({ vm: { pid: 4711, id } });
  }

  createContainer(_ctx: Context, sandboxId: string, config: ContainerConfig): Promise<ContainerRecord> {
    const sandbox = this.sandbox(sandboxId);
    if (!isReady(sandbox))
      return Promise.reject(new HerkosError('FailedPrecondition', 'the pod is not ready'));
    const id = newId();
    const record: ContainerRecord = {
      schemaVersion: 1,
      id,
      sandboxId,
      config,
      imageId: `sha256:${'a'.repeat(64)}`,
      imageRef: `example.org/app@sha256:${'b'.repeat(64)}`,
      user: { uid: config.security.runAsUser ?? 0, gid: 0, supplementalGroups: [7] },
      stopSignal: 15,
      logPath: config.logPath === '' ? '' : `${sandbox.config.logDirectory}/${config.logPath}`,
      createdAt: nowUnixNano(),
      startedAt: noTime,
      finishedAt: noTime,
      phase: 'created',
    };
    this.#containers.set(id, record);
    return Promise.resolve(record);
  }

  startContainer(_ctx: Context, id: string): Promise<void> {
    const record = this.container(id);
    if (record.phase !== 'created')
      return Promise.reject(new HerkosError('FailedPrecondition', `the container is ${record.phase}`));
    this.#containers.set(id, toRunning(toStarting(record), nowUnixNano()));
    return Promise.resolve();
  }

  stopContainer(_ctx: Context, id: string, timeoutSeconds: number): Promise<void> {
    this.calls.push(`stopContainer ${id} ${String(timeoutSeconds)}`);
    this.exit(id, timeoutSeconds === 0 ? 137 : 143);
    return Promise.resolve();
  }

  removeContainer(_ctx: Context, id: string): Promise<void> {
    this.#containers.delete(id);
    return Promise.resolve();
  }

  updateSandbox(
    _ctx: Context,
    id: string,
    change: { readonly resources?: LinuxResources; readonly overhead?: LinuxResources },
  ): Promise<void> {
    const record = this.sandbox(id);
    if (!isReady(record))
      return Promise.reject(new HerkosError('FailedPrecondition', 'the pod is not ready'));
    this.#sandboxes.set(id, { ...record, config: { ...record.config, ...change } });
    return Promise.resolve();
  }

  updateContainer(_ctx: Context, id: string, change: LinuxResources): Promise<void> {
    const record = this.container(id);
    if (hasExited(record))
      return Promise.reject(new HerkosError('FailedPrecondition', 'the container has ended'));
    const resources = changedResources(record.config.resources, change);
    this.#containers.set(id, { ...record, config: { ...record.config, resources } });
    return Promise.resolve();
  }

  container(id: string): ContainerRecord {
    return find(this.#containers, id, 'container');
  }

  containers(): readonly ContainerRecord[] {
    return [...this.#containers.values()];
  }

  reopenLog(_ctx: Context, id: string): Promise<void> {
    if (this.container(id).phase === 'running') return Promise.resolve();
    return Promise.reject(new HerkosError('FailedPrecondition', 'the container does not run'));
  }

  /** Like the real room: the command's own time limit is a DeadlineExceeded. */
  async execSync(
    ctx: Context,
    id: string,
    command: readonly string[],
    timeoutSeconds: number,
  ): Promise<ExecOutput> {
    this.calls.push(`execSync ${id} ${String(timeoutSeconds)}`);
    return this.exec(ctx, command);
  }

  networkStatus(): Promise<NetworkStatus> {
    return Promise.resolve(this.network);
  }

  /** Ends a container as if its process had. */
  exit(id: string, code: number): void {
    const record = this.#containers.get(id);
    if (record === undefined || record.phase === 'exited') return;
    const now = nowUnixNano();
    this.#containers.set(id, toExited(record, exitOf(code, false), now, now));
  }
}

/** Waits for the end of the context; for `beforeRun` and `exec`. */
export async function untilDone(ctx: Context): Promise<never> {
  await sleep(ctx, 60_000);
  throw new Error('the context should have ended');
}

function find<T>(records: ReadonlyMap<string, T>, id: string, what: string): T {
  const exact = records.get(id);
  if (exact !== undefined) return exact;
  const matches = id.length < prefixLengthMin ? [] : [...records].filter(([key]) => key.startsWith(id));
  const [match] = matches;
  if (match === undefined || matches.length > 1)
    throw new HerkosError('NotFound', `there is no ${what} ${id}`);
  return match[1];
}
