/** What the verbs of this room share. One object for the daemon's life; the verbs are functions of it. */
import type { CancellableContext, Context } from '../base/context.js';
import { background, withCancel } from '../base/context.js';
import type { Exec } from '../base/exec.js';
import { Gate } from '../base/gate.js';
import { KeyedLock } from '../base/keyed-lock.js';
import type { Logger } from '../base/logger.js';
import { PodEvents } from './events.js';
import { Ledger } from './ledger.js';
import type { LogFiles } from './output/files.js';
import type { GuestConnector, PodImages, PodNetwork, PodObserver, PodStores, VmProvider } from './ports.js';
import { Semaphore } from '../base/semaphore.js';
import { Registry } from './registry.js';
import type { PodDeadlines, PodSettings, PodSizing } from './settings.js';
import type { Step } from './steps.js';
import { takeStep } from './steps.js';

export interface PodParts {
  readonly stores: PodStores;
  readonly vms: VmProvider;
  readonly network: PodNetwork;
  readonly images: PodImages;
  readonly guests: GuestConnector;
  readonly exec: Exec;
  readonly files: LogFiles;
  readonly sizing: PodSizing;
  readonly settings: PodSettings;
  readonly log: Logger;
  readonly observer?: PodObserver | undefined;
}

export class PodRoom {
  readonly parts: PodParts;
  readonly registry = new Registry();
  readonly ledger: Ledger;
  readonly events: PodEvents;
  readonly log: Logger;
  readonly settings: PodSettings;
  /** One move of a container's state at a time. */
  readonly locks = new KeyedLock();
  /** One change of a VM's size at a time. */
  readonly sizeLocks = new KeyedLock();
  /** Pods that start at once take the processors from each other, and all of them take longer. */
  readonly startTurns: Semaphore;
  /** Ends when the daemon does: what is left to do then is done by the next one. */
  readonly life: CancellableContext = withCancel(background());
  /** Opens when leftovers of an earlier daemon have been swept: new pods wait for it. */
  readonly swept = new Gate();

  constructor(parts: PodParts) {
    this.parts = parts;
    this.log = parts.log;
    this.settings = parts.settings;
    this.startTurns = new Semaphore(parts.settings.startsAtATime);
    this.events = new PodEvents(parts.log);
    this.ledger = new Ledger(parts.stores, parts.log, parts.settings.deadlines, this.life);
  }

  get isClosed(): boolean {
    return this.life.signal.aborted;
  }

  /** A step of work under a deadline of the settings. */
  async step<T>(
    ctx: Context,
    what: string,
    deadline: keyof PodDeadlines,
    body: (ctx: Context) => Promise<T>,
    late?: (value: T) => void,
  ): Promise<T> {
    const { deadlines } = this.settings;
    const step: Step<T> = { what, timeoutMs: deadlines[deadline], settleMs: deadlines.settleMs };
    return takeStep(ctx, late === undefined ? step : { ...step, late }, body);
  }
}
