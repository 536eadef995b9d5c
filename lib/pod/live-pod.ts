/** A sandbox's running VM and the link to the agent inside, from READY (or adoption) until it stops. */
import type { CancellableContext, Context } from '../base/context.js';
import { abortable, background, withCancel } from '../base/context.js';
import { HerkosError } from '../base/errors.js';
import type { VmShape } from '../model/vm.js';
import type { Guest, PodVm } from './ports.js';

export class LivePod {
  readonly vm: PodVm;
  /** What the VM was last brought to, at the least; undefined while that is not known. */
  size: VmShape | undefined;
  /** Changes of size in the background, waiting or under way. */
  readonly settling = new Set<CancellableContext>();
  /** The one of them that waits for the guest to need less. */
  resting: CancellableContext | undefined;
  /** Ends when the pod stops being usable: stop asked for, VM dead. Requests for its containers end with it. */
  readonly #scope: CancellableContext = withCancel(background());
  /** Ends when the link is given up on purpose; longer than the scope, so that a stop still sees exits. */
  readonly #link: CancellableContext = withCancel(background());
  #guest: Guest | undefined;
  readonly #waiters = new Set<(guest: Guest) => void>();
  #vmGone = false;

  /** @param size undefined: an earlier daemon may have changed it */
  constructor(vm: PodVm, size: VmShape | undefined) {
    this.vm = vm;
    this.size = size;
    void vm.exited.then((exit) => {
      this.#vmGone = true;
      this.#scope.cancel(vmEnded(exit.lastWords));
    });
  }

  get scope(): Context {
    return this.#scope;
  }

  get link(): Context {
    return this.#link;
  }

  /** The process has ended: nothing inside needs to be, or can be, asked any more. */
  get isVmGone(): boolean {
    return this.#vmGone;
  }

  /** The connection in use; undefined while there is none. */
  get currentGuest(): Guest | undefined {
    return this.#guest;
  }

  setGuest(guest: Guest | undefined): void {
    this.#guest = guest;
    if (guest === undefined) return;
    for (const wake of [...this.#waiters]) wake(guest);
  }

  /** The agent, as soon as it can be reached. */
  async guest(ctx: Context): Promise<Guest> {
    if (this.#guest !== undefined) return this.#guest;
    let wake: (guest: Guest) => void = () => undefined;
    const connected = new Promise<Guest>((resolve) => {
      wake = resolve;
    });
    this.#waiters.add(wake);
    try {
      return await abortable(ctx, connected);
    } finally {
      this.#waiters.delete(wake);
    }
  }

  /** Ends all requests for this pod with `reason`. Idempotent. */
  end(reason: HerkosError): void {
    this.#scope.cancel(reason);
  }

  /** No more links: the pod stops, or the daemon does. */
  async endLink(): Promise<void> {
    this.#link.cancel();
    await this.disconnect();
  }

  /** Lets go of the connection; the guest goes on. */
  async disconnect(): Promise<void> {
    const guest = this.#guest;
    this.#guest = undefined;
    await guest?.close();
  }
}

/** The VM's process ended though nobody asked; its last words may say why. */
export function vmEnded(lastWords: string): HerkosError {
  const words = lastWords === '' ? '' : `: ${lastWords.slice(-lastWordsShown)}`;
  return new HerkosError('Unavailable', `the virtual machine ended by itself${words}`);
}

const lastWordsShown = 500;

/** The request failed because the pod is going away. */
export function stoppingError(id: string): HerkosError {
  return new HerkosError('FailedPrecondition', `the pod sandbox ${id} is stopping`);
}
