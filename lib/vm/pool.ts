import type { Context } from '../base/context.js';
import { background, throwIfDone, underDeadline, withCancel, withTimeout } from '../base/context.js';
import { classOf, messageOf } from '../base/errors.js';
import { newId } from '../base/ids.js';
import type { Logger } from '../base/logger.js';
import type { VmRecord } from '../model/vm.js';
import type { Machines } from './machines.js';
import type { ManagedVm } from './managed-vm.js';
import type { PoolDrop, Rehearsal, VmObserver } from './ports.js';
import type { PoolSettings } from './settings.js';
import type { Template } from './template/template-files.js';
import type { TemplateWant } from './template/slots.js';
import type { Templates } from './template/templates.js';

export interface PoolOptions {
  readonly settings: PoolSettings;
  readonly machines: Machines;
  readonly templates: Templates;
  readonly rehearsal: Rehearsal;
  readonly cgroupParent: string;
  /** Bytes that the node could give to new processes now. */
  readonly availableBytes: () => Promise<number>;
  /** Bytes of the node's memory that a VM uses. */
  readonly bytesUsed: (record: VmRecord) => Promise<number>;
  readonly logger: Logger;
  readonly observer?: VmObserver | undefined;
}

/** How many VMs of one kind wait, and how many should. */
export interface PoolReport {
  readonly domain: string;
  readonly ready: number;
  readonly target: number;
}

const fillTimeoutMs = 60_000;
const dropTimeoutMs = 30_000;
/** Between two looks at the memory of the node, at what nobody asks for any more, and at what failed. */
const lookEveryMs = 10_000;
/** Without a pod that waits for its VM, before the pool is filled. */
const quietMs = 1_000;

interface Ready {
  readonly vm: ManagedVm;
  readonly templateId: string;
  /** Of the node's memory, when it was stopped: it uses no more after that. */
  readonly bytes: number;
}

interface Kind {
  readonly want: TemplateWant;
  readonly ready: Ready[];
  /** performance.now() of the last time somebody asked. */
  askedAtMs: number;
}

/**
 * VMs that are cloned, have answered once and wait stopped, with their namespace and tap, for a pod to
 * take them. Filled one at a time, the shortest kind first, and only while no pod waits for its VM; what is being
 * made ready has the least share of the processors.
 */
export class Pool {
  readonly #options: PoolOptions;
  readonly #kinds = new Map<string, Kind>();
  readonly #life = withCancel(background());
  #waiting = 0;
  #filling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #look: NodeJS.Timeout | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** How many VMs wait. */
  get length(): number {
    return this.#ready.length;
  }

  /** Of each kind. */
  report(): PoolReport[] {
    const { size: target } = this.#options.settings;
    return [...this.#kinds.values()].map(({ want: { domain }, ready }) => ({
      domain,
      ready: ready.length,
      target,
    }));
  }

  /** Keeps VMs of this kind ready from now on. */
  want(want: TemplateWant): void {
    if (this.#options.settings.size === 0) return;
    this.#kindOf(want).askedAtMs = performance.now();
    this.#look ??= setInterval(() => {
      this.#lookAfter();
    }, lookEveryMs).unref();
    this.#fillSoon();
  }

  /**
   * A VM whose guest is stopped; the caller resumes it. Undefined when none is ready. None of a template that a
   * clone would not be made of now: its guest or hypervisor may have been replaced for a reason.
   */
  async take(ctx: Context, want: TemplateWant): Promise<ManagedVm | undefined> {
    const { settings, machines, templates, observer } = this.#options;
    if (settings.size === 0) return undefined;
    const kind = this.#kindOf(want);
    kind.askedAtMs = performance.now();
    const current = kind.ready.length === 0 ? undefined : await templates.currentId(ctx, want);
    for (let entry = kind.ready.shift(); entry !== undefined; entry = kind.ready.shift()) {
      if (entry.templateId === current && machines.running(entry.vm.record.id) === entry.vm) {
        observer?.poolAsked(want.domain, true);
        return entry.vm;
      }
      void this.#giveUp(entry.vm, 'stale');
    }
    observer?.poolAsked(want.domain, false);
    return undefined;
  }

  /** Work that somebody waits for: the pool is not filled meanwhile. */
  async foreground<T>(body: () => Promise<T>): Promise<T> {
    this.#waiting += 1;
    try {
      return await body();
    } finally {
      this.#waiting -= 1;
      // Its pod still comes up for a moment, and mostly is not the only one.
      if (this.#waiting === 0) this.#later(quietMs);
    }
  }

  /** Takes everything down; for a shutdown, and when the node needs its memory. */
  async drain(why: PoolDrop): Promise<void> {
    const all = [...this.#kinds.values()].flatMap(({ ready }) => ready.splice(0));
    await Promise.all(all.map(({ vm }) => this.#giveUp(vm, why)));
  }

  async close(): Promise<void> {
    this.#life.cancel();
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    await this.#filling;
    await this.drain('shutdown');
  }

  #kindOf(want: TemplateWant): Kind {
    const { domain, shape, accelerator } = want;
    const key = [domain, shape.vcpus, shape.memoryMib, accelerator].join(' ');
    const known = this.#kinds.get(key);
    if (known !== undefined) return known;
    const kind: Kind = { want, ready: [], askedAtMs: performance.now() };
    this.#kinds.set(key, kind);
    return kind;
  }

  get #ready(): readonly Ready[] {
    return [...this.#kinds.values()].flatMap(({ ready }) => ready);
  }

  /** Whatever is being filled, and however long that takes: memory may be short any time. */
  #lookAfter(): void {
    this.#drainIfShort()
      .then((isShort) => {
        if (!isShort) this.#fillSoon();
      })
      .catch((error: unknown) => {
        this.#options.logger.warn('cannot look after the pool', { error: messageOf(error) });
      });
  }

  async #drainIfShort(): Promise<boolean> {
    const { settings, availableBytes, logger } = this.#options;
    if ((await availableBytes()) >= settings.memoryReserveBytes) return false;
    if (this.length > 0) logger.info('memory is short; the pool is emptied', {});
    await this.drain('memory');
    return true;
  }

  #fillSoon(): void {
    if (this.#filling !== undefined || this.#life.signal.aborted || this.#options.settings.size === 0) return;
    this.#filling = this.#fill()
      .catch((error: unknown) => {
        this.#noteFailure(error);
      })
      .finally(() => {
        this.#filling = undefined;
      });
  }

  #noteFailure(error: unknown): void {
    if (this.#life.signal.aborted) return;
    this.#options.observer?.poolFillFailed();
    this.#options.logger.warn('the pool cannot be filled now', { error: messageOf(error) });
  }

  #later(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#fillSoon();
    }, afterMs);
    this.#timer.unref();
  }

  async #fill(): Promise<void> {
    // Until the next look: one kind that cannot be had must not keep the others from being filled.
    const failed = new Set<Kind>();
    for (;;) {
      await this.#dropUnwanted();
      if ((await this.#drainIfShort()) || this.#waiting > 0 || this.#life.signal.aborted) return;
      const kind = this.#shortest(failed);
      if (kind === undefined || !this.#hasRoom()) return;
      try {
        const template = await this.#options.templates.find(this.#life, kind.want);
        if (template === undefined) failed.add(kind);
        else await this.#add(kind, template);
      } catch (error) {
        failed.add(kind);
        this.#noteFailure(error);
      }
    }
  }

  /** Of the kinds that are not full. */
  #shortest(failed: ReadonlySet<Kind>): Kind | undefined {
    const { size } = this.#options.settings;
    return [...this.#kinds.values()]
      .filter((kind) => kind.ready.length < size && !failed.has(kind))
      .sort((one, other) => one.ready.length - other.ready.length)[0];
  }

  /** For one more, which will use about as much as the others do. */
  #hasRoom(): boolean {
    const { sizeMax, memoryBytesMax } = this.#options.settings;
    const ready = this.#ready;
    const used = ready.reduce((sum, { bytes }) => sum + bytes, 0);
    return ready.length < sizeMax && used + used / Math.max(1, ready.length) <= memoryBytesMax;
  }

  async #add(kind: Kind, template: Template): Promise<void> {
    const ctx = withTimeout(this.#life, fillTimeoutMs, 'filling the pool');
    try {
      const vm = await this.#clone(ctx, kind.want, template);
      try {
        await this.#makeReady(ctx, vm);
        const bytes = await this.#options.bytesUsed(vm.record);
        this.#keep(kind, { vm, templateId: template.id, bytes });
      } catch (error) {
        await this.discard(vm);
        throw error;
      }
    } finally {
      ctx.cancel();
    }
  }

  async #clone(ctx: Context, want: TemplateWant, template: Template): Promise<ManagedVm> {
    const { machines, templates, cgroupParent } = this.#options;
    const request = {
      id: newId(),
      sandboxId: '',
      source: 'pool',
      template: { id: template.id, gid: template.gid },
      cgroupParent,
      ...want,
    } as const;
    return machines.make(
      ctx,
      request,
      { kind: 'clone', image: templates.image(template) },
      {
        onCloneFailed: async (error) => {
          // Neither a shutdown nor a busy node says anything about the template.
          throwIfDone(ctx);
          if (classOf(error) !== 'DeadlineExceeded') await templates.refuse(template, error);
          // Nobody waits for it: a VM that boots instead is no use.
          throw error;
        },
      },
    );
  }

  async #makeReady(ctx: Context, vm: ManagedVm): Promise<void> {
    await vm.resume(ctx);
    await this.#options.rehearsal.rehearse(ctx, vm.agentSocketPath, vm.spareNic);
    await vm.pause(ctx);
  }

  #keep(kind: Kind, entry: Ready): void {
    const { vm } = entry;
    kind.ready.push(entry);
    this.#options.observer?.poolFilled(kind.want.domain);
    void vm.exited.then(() => {
      const at = kind.ready.indexOf(entry);
      if (at < 0) return;
      kind.ready.splice(at, 1);
      this.#options.logger.warn('a VM of the pool ended by itself', { vm: vm.record.id });
      void this.#giveUp(vm, 'ended');
    });
  }

  async #dropUnwanted(): Promise<void> {
    const { settings, templates } = this.#options;
    for (const [key, kind] of this.#kinds) {
      const isIdle = performance.now() - kind.askedAtMs > settings.idleMsMax;
      const old = kind.ready.filter(({ templateId }) => isIdle || !templates.isCurrent(templateId));
      // All at once, before anything is waited for: pods take VMs meanwhile.
      if (isIdle) this.#kinds.delete(key);
      kind.ready.splice(0, Infinity, ...kind.ready.filter((entry) => !old.includes(entry)));
      for (const entry of old) await this.#giveUp(entry.vm, isIdle ? 'idle' : 'stale');
    }
  }

  async #giveUp(vm: ManagedVm, why: PoolDrop): Promise<void> {
    this.#options.observer?.poolDropped(vm.record.domain, why);
    await this.discard(vm);
  }

  /** Of a VM that it has made, also one that was taken and is of no use; it never fails. */
  async discard(vm: ManagedVm): Promise<void> {
    try {
      await underDeadline(background(), dropTimeoutMs, 'removing a VM of the pool', (ctx: Context) =>
        this.#options.machines.unmake(ctx, vm.record),
      );
    } catch (error) {
      // The next start sweeps it.
      this.#options.logger.error('a VM of the pool cannot be removed', {
        vm: vm.record.id,
        error: messageOf(error),
      });
    }
  }
}
