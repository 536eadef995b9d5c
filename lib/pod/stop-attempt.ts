/**
 * Stopping one container: signal, patience, SIGKILL, and when even that does not end it, the whole VM. One
 * attempt at a time for a container; a later request with less patience shortens it.
 */
import { background, sleep, withCancel } from '../base/context.js';
import type { CancellableContext } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import { hasExited } from '../model/container-state.js';
import type { ContainerEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { attempt } from './steps.js';
import { failSandbox } from './stop-sandbox.js';

const sigkill = 9;
/** setTimeout's longest wait; a longer patience is as good as for ever. */
const patienceMsMax = 2 ** 31 - 1;

export class StopAttempt {
  /** Settles when the container has ended. */
  readonly done: Promise<void>;
  readonly #room: PodRoom;
  readonly #entry: ContainerEntry;
  #killAtMs: number;
  #patience: CancellableContext = withCancel(background());

  constructor(room: PodRoom, entry: ContainerEntry, patienceMs: number) {
    this.#room = room;
    this.#entry = entry;
    this.#killAtMs = performance.now() + Math.min(patienceMs, patienceMsMax);
    this.done = this.#run(patienceMs > 0);
  }

  /** Kills earlier when `patienceMs` from now is earlier. */
  shorten(patienceMs: number): void {
    const killAtMs = performance.now() + Math.min(patienceMs, patienceMsMax);
    if (killAtMs >= this.#killAtMs) return;
    this.#killAtMs = killAtMs;
    this.#patience.cancel();
  }

  async #run(friendly: boolean): Promise<void> {
    const { record } = this.#entry;
    if (friendly) {
      // Not waited for: a guest that hangs over the signal must not use up the patience twice.
      void this.#signal(record.stopSignal, false);
      await this.#waitForPatience();
    }
    if (hasExited(this.#entry.record)) return;
    const { killMs, drainMs } = this.#room.settings.deadlines;
    const ended = withCancel(background());
    void this.#signal(sigkill, true);
    await Promise.race([this.#entry.exited, sleep(ended, killMs + drainMs).catch(() => undefined)]);
    ended.cancel();
    if (hasExited(this.#entry.record)) return;
    // A guest that cannot kill is hung. The pod dead is what an operator expects, rather than stuck (R3).
    const why = `container ${record.id} did not end within ${String(killMs)} ms of SIGKILL`;
    failSandbox(this.#room, this.#entry.sandbox, `${why}; its virtual machine was killed`);
    await this.#entry.exited;
  }

  /** Until the container ends or the patience, which may shrink meanwhile, is over. */
  async #waitForPatience(): Promise<void> {
    while (!hasExited(this.#entry.record) && performance.now() < this.#killAtMs) {
      this.#patience = withCancel(background());
      const timeUp = sleep(this.#patience, this.#killAtMs - performance.now()).catch(() => undefined);
      await Promise.race([this.#entry.exited, timeUp]);
      this.#patience.cancel();
    }
  }

  async #signal(signal: number, all: boolean): Promise<void> {
    const { sandbox, record } = this.#entry;
    const { live } = sandbox;
    if (live === undefined) return;
    await attempt(
      this.#room.settings.deadlines.killMs,
      'signalling a container',
      async (ctx) => (await live.guest(ctx)).signalContainer(ctx, record.id, signal, all),
      (error) => {
        if (!hasExited(this.#entry.record))
          this.#room.log.warn('a signal did not reach a container', {
            container: record.id,
            signal,
            error: messageOf(error),
          });
      },
    );
  }
}
