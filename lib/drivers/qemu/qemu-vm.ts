import type { Context } from '../../base/context.js';
import { background, underDeadline } from '../../base/context.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { LayerDevice } from '../../model/image.js';
import type { DeviceLocator, VmExit, VmShape } from '../../model/vm.js';
import type { MachineReport, RunningVm, TemplateImage } from '../../vm/ports.js';
import { isObject } from '../../wire/qmp/message.js';
import { agentPortId } from './command-line.js';
import type { Hotplug } from './hotplug.js';
import { saveState } from './migration.js';
import type { HypervisorProcess } from './process.js';
import type { QmpEvent, QmpSession } from './qmp-session.js';

export interface QemuVmParts {
  readonly process: HypervisorProcess;
  readonly session: QmpSession;
  readonly hotplug: Hotplug;
  readonly agentSocketPath: string;
  /** Frees what watches the VM's log. */
  readonly closeLog: () => void;
  readonly logger: Logger;
}

/** A QEMU that closed its monitor is about to end; one that lives on after that is out of control. */
const endAfterLossTimeoutMs = 2_000;

/** A running QEMU process and its monitor connection. */
export class QemuVm implements RunningVm {
  readonly pid: number;
  readonly processStartTicks: string;
  readonly agentSocketPath: string;
  readonly exited: Promise<VmExit>;
  readonly hotplug: Hotplug;
  readonly #parts: QemuVmParts;
  #state: 'live' | 'released' | 'ended' = 'live';

  constructor(parts: QemuVmParts) {
    this.#parts = parts;
    this.hotplug = parts.hotplug;
    this.pid = parts.process.pid;
    this.processStartTicks = parts.process.startTicks;
    this.agentSocketPath = parts.agentSocketPath;
    this.exited = parts.process.exited;
    parts.session.onEvent((event) => {
      this.#onEvent(event);
    });
    void parts.session.lost.then((why) => this.#onLost(why));
    void this.exited.then(() => {
      if (this.#state === 'live') this.#state = 'ended';
      this.#close();
    });
  }

  async plugNic(ctx: Context, mac: string): Promise<string> {
    return this.#whileLive(() => this.hotplug.plugNic(ctx, mac));
  }

  get spareNic(): string | undefined {
    return this.hotplug.spareNic;
  }

  async plugLayers(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]> {
    return this.#whileLive(() => this.hotplug.plugLayers(ctx, owner, layers));
  }

  async plugDisk(ctx: Context, owner: string, path: string): Promise<DeviceLocator> {
    return this.#whileLive(() => this.hotplug.plugDisk(ctx, owner, path));
  }

  async unplugGone(ctx: Context, owner: string): Promise<void> {
    if (this.#state === 'ended') return;
    await this.#whileLive(() => this.hotplug.unplugGone(ctx, owner));
  }

  async plugPort(ctx: Context, owner: string, name: string, socketPath: string): Promise<void> {
    await this.#whileLive(() => this.hotplug.plugPort(ctx, owner, name, socketPath));
  }

  async resize(ctx: Context, size: VmShape): Promise<VmShape> {
    return this.#whileLive(() => this.hotplug.resize(ctx, size));
  }

  async powerDown(ctx: Context): Promise<void> {
    await this.#whileLive(() => this.#parts.session.execute(ctx, 'system_powerdown'));
  }

  async pause(ctx: Context): Promise<void> {
    await this.#whileLive(() => this.#parts.session.execute(ctx, 'stop'));
  }

  async resume(ctx: Context): Promise<void> {
    await this.#whileLive(() => this.#parts.session.execute(ctx, 'cont'));
  }

  async saveTemplate(ctx: Context, image: TemplateImage): Promise<void> {
    await this.#whileLive(() => saveState(ctx, this.#parts.session, image));
  }

  async kill(ctx: Context): Promise<void> {
    await this.#parts.process.kill(ctx);
  }

  release(): Promise<void> {
    if (this.#state === 'live') this.#state = 'released';
    this.#parts.process.release();
    this.#close();
    return Promise.resolve();
  }

  async describe(ctx: Context): Promise<MachineReport> {
    return this.#whileLive(async () => {
      const size = await this.hotplug.size(ctx);
      const devices = this.hotplug.describe().map(({ kind, index, keys, owners, state }) => {
        return { kind, place: String(index), keys: [...keys], owners: [...owners], state };
      });
      return { size, devices };
    });
  }

  async #whileLive<T>(body: () => Promise<T>): Promise<T> {
    if (this.#state !== 'live') throw new HerkosError('Unavailable', 'the VM has ended');
    try {
      return await body();
    } catch (error) {
      if (classOf(error) !== 'Unavailable') throw error;
      throw new HerkosError('Unavailable', `the VM has ended: ${messageOf(error)}`, { cause: error });
    }
  }

  #onEvent(event: QmpEvent): void {
    const { logger, process } = this.#parts;
    switch (event.name) {
      case 'SHUTDOWN': {
        process.hint(shutdownReason(String(event.data['reason'])));
        return;
      }
      case 'STOP':
        void this.#onStop();
        return;
      case 'VSERPORT_CHANGE':
        if (event.data['id'] === agentPortId)
          logger.debug('agent port', { open: event.data['open'] === true });
        return;
      default:
        return;
    }
  }

  /** KVM stops a guest that it cannot run any more; nothing will ever wake it. */
  async #onStop(): Promise<void> {
    try {
      const status = await this.#parts.session.execute(background(), 'query-status');
      const what = isObject(status) ? status['status'] : undefined;
      if (what !== 'internal-error' && what !== 'io-error' && what !== 'guest-panicked') return;
      this.#parts.process.hint(`QEMU stopped the VM: ${what}`);
      await this.kill(background());
    } catch (error) {
      if (classOf(error) !== 'Unavailable')
        this.#parts.logger.warn('cannot look after a stopped VM', { error: messageOf(error) });
    }
  }

  /** For an adopted process this is the first sign of its end; `exited` settles as soon as /proc agrees. */
  async #onLost(why: string): Promise<void> {
    if (this.#state !== 'live') return;
    const { process, logger } = this.#parts;
    try {
      await underDeadline(background(), endAfterLossTimeoutMs, 'the end of QEMU', (ctx) =>
        process.awaitGone(ctx),
      );
    } catch {
      logger.error('a monitor connection broke, but its QEMU lives on; it is killed', { why });
      process.hint(`killed because its monitor connection broke: ${why}`);
      await process.kill(background());
    }
  }

  #close(): void {
    this.#parts.session.destroy();
    this.#parts.closeLog();
  }
}

/** QEMU's ShutdownCause (qapi/run-state.json), for people. */
function shutdownReason(cause: string): string {
  switch (cause) {
    case 'guest-reset':
      return 'the guest reset itself: its kernel panicked or its agent ended';
    case 'guest-shutdown':
      return 'the guest shut down';
    default:
      return `QEMU shut down: ${cause.slice(0, 100)}`;
  }
}
