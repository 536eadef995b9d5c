import Long from 'long';

import { agent } from '#gen/agent/v1/services.js';
import type { Context } from '../../base/context.js';
import { abortable, withTimeout } from '../../base/context.js';
import { HerkosError, classOf } from '../../base/errors.js';
import { KIB } from '../../base/units.js';
import type { UnixNano } from '../../model/time.js';
import type {
  Guest,
  GuestContainer,
  GuestContainerState,
  GuestExec,
  GuestExecResult,
  GuestExit,
  GuestInfo,
  GuestMemory,
  GuestOutput,
  GuestPodSetup,
  OutputStreamName,
} from '../../pod/ports.js';
import { checkedCount, checkedNumber, misbehaved } from './check.js';
import { runExec } from './exec.js';
import { ExitBook, checkedExit, checkedStates } from './exits.js';
import { cpusMax } from './limits.js';
import type { GuestLink } from './link.js';
import { container, ownId, podSetup } from './messages.js';
import { OutputReader } from './output.js';

/** An id and three numbers. */
const exitMessageBytesMax = KIB;
const signalMax = 64;
/** Between a shutdown's broken answer and the end of the connection. */
const lostSoonTimeoutMs = 5_000;

/** A guest that has said hello. */
export class GuestConnection implements Guest {
  readonly info: GuestInfo;
  readonly #link: GuestLink;
  readonly #exits = new ExitBook();

  constructor(link: GuestLink, info: GuestInfo) {
    this.#link = link;
    this.info = info;
  }

  get lost(): Promise<void> {
    return this.#link.lost;
  }

  async setupPod(ctx: Context, setup: GuestPodSetup): Promise<void> {
    await this.#link.call(ctx, agent.setupPod, podSetup(setup), 'setting up the pod in the guest');
  }

  async createContainer(ctx: Context, request: GuestContainer): Promise<void> {
    const message = container(request);
    await this.#link.call(ctx, agent.createContainer, message, 'creating the container in the guest');
  }

  async startContainer(ctx: Context, containerId: string): Promise<void> {
    const message = { containerId: ownId(containerId) };
    await this.#link.call(ctx, agent.startContainer, message, 'starting the container in the guest');
  }

  async signalContainer(ctx: Context, containerId: string, signal: number, all: boolean): Promise<void> {
    if (!Number.isInteger(signal) || signal < 1 || signal > signalMax)
      throw new HerkosError('InvalidArgument', `there is no signal ${String(signal)}`);
    const message = { containerId: ownId(containerId), signal, allProcesses: all };
    await this.#link.call(ctx, agent.signalContainer, message, 'sending a signal in the guest');
  }

  async removeContainerGone(ctx: Context, containerId: string): Promise<void> {
    const message = { containerId: ownId(containerId) };
    await this.#link.call(ctx, agent.removeContainer, message, 'removing the container in the guest');
    this.#exits.forget(containerId);
  }

  async listContainers(ctx: Context): Promise<GuestContainerState[]> {
    const answer = await this.#link.call(
      ctx,
      agent.listContainers,
      {},
      'listing the containers of the guest',
    );
    return checkedStates(answer.containers);
  }

  async *watchExits(ctx: Context): AsyncGenerator<GuestExit, void, void> {
    const what = 'watching the containers of the guest';
    const messages = this.#link.answers(ctx, agent.watchExits, {}, what, exitMessageBytesMax);
    this.#exits.begin();
    for await (const message of messages) {
      const exit = checkedExit(message);
      if (this.#exits.isNew(exit)) yield exit;
    }
    // The call goes on for ever; an agent that ends it lets go of this connection.
    throw new HerkosError('Unavailable', `${what}: the guest ended it`);
  }

  readOutput(ctx: Context, containerId: string, stream: OutputStreamName, fromOffset: bigint): GuestOutput {
    return new OutputReader(ctx, this.#link, { containerId: ownId(containerId), stream, fromOffset });
  }

  async exec(ctx: Context, request: GuestExec): Promise<GuestExecResult> {
    return runExec(ctx, this.#link, request);
  }

  /** Of a machine that is to be cloned; not part of what pods see of a guest. */
  async rehearse(ctx: Context, nicMac = ''): Promise<void> {
    await this.#link.call(ctx, agent.rehearse, { mac: nicMac }, 'rehearsing in the guest');
  }

  async updateContainer(ctx: Context, containerId: string, ociResources: Buffer): Promise<void> {
    const message = { containerId: ownId(containerId), ociResources };
    await this.#link.call(ctx, agent.updateContainer, message, 'changing a container’s limits in the guest');
  }

  async onlineCpus(ctx: Context, count: number): Promise<void> {
    const what = 'bringing processors online in the guest';
    const { cpus } = await this.#link.call(ctx, agent.onlineCpus, { cpus: count }, what);
    const online = checkedNumber(cpus, 'its number of CPUs', cpusMax);
    if (online < count) throw misbehaved(`was content with ${String(online)} of ${String(count)} processors`);
  }

  async memory(ctx: Context): Promise<GuestMemory> {
    const answer = await this.#link.call(ctx, agent.memoryInfo, {}, 'asking the guest for its memory');
    const totalBytes = checkedCount(answer.totalBytes, 'its memory');
    return { totalBytes, availableBytes: checkedCount(answer.availableBytes, 'its free memory', totalBytes) };
  }

  async adjustClock(ctx: Context, byNanos: bigint): Promise<UnixNano> {
    const message = { byNanos: Long.fromString(byNanos.toString()) };
    const answer = await this.#link.call(ctx, agent.adjustClock, message, 'adjusting the clock of the guest');
    if (answer.unixNano.isNegative()) throw misbehaved(`said that it is ${answer.unixNano.toString()}`);
    return answer.unixNano.toString();
  }

  async shutdown(ctx: Context): Promise<void> {
    try {
      await this.#link.call(ctx, agent.shutdown, {}, 'shutting the guest down');
    } catch (error) {
      // A guest that is going off may cut its answer short: then the connection ends too.
      if (!['Unavailable', 'Aborted'].includes(classOf(error)) || !(await this.#isLostSoon(ctx))) throw error;
    }
  }

  async #isLostSoon(ctx: Context): Promise<boolean> {
    const patience = withTimeout(ctx, lostSoonTimeoutMs, 'the end of the connection');
    return abortable(patience, this.lost)
      .then(
        () => true,
        () => false,
      )
      .finally(() => {
        patience.cancel();
      });
  }

  close(): Promise<void> {
    this.#link.destroy();
    return Promise.resolve();
  }
}
