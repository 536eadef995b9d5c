import type { Context } from '../base/context.js';
import { background, throwIfDone, underDeadline, withCancel, withTimeout } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import { newId } from '../base/ids.js';
import type { Logger } from '../base/logger.js';
import type { Machines } from './machines.js';
import type { ManagedVm } from './managed-vm.js';
import type { PoolDrop, Rehearsal, VmObserver } from './ports.js';
import type { PoolSettings } from './settings.js';
import type { Template } from './template/template-files.js';
import type { TemplateWant, Templates } from './template/templates.js';

export interface PoolOptions {
  readonly settings: PoolSettings;
  readonly machines: Machines;
  readonly templates: Templates;
  readonly rehearsal: Rehearsal;
  readonly cgroupParent: string;
  /** Bytes that the node could give to new processes now. */
  readonly availableBytes: () => Promise<number>;
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
/** After a failure, or when memory is short, before the next look. */
const pauseMs = 10_000;
/** Without a pod that waits for its VM, before the pool is filled. */
const quietMs = 1_000;

interface Kind {
  readonly want: TemplateWant;
  readonly ready: { readonly vm: ManagedVm; readonly templateId: string }[];
  /** performance.now() of the last time somebody asked. */
  askedAtMs: number;
}

/**
 * VMs that are cloned, have answered once and wait stopped, with their namespace and tap, for a pod to
 * take them. Filled one at a time, and only while no pod waits for its VM.
 */
export class Pool {
  readonly #options: PoolOptions;
  readonly #kinds = new Map<string, Kind>();
  readonly #life = withCancel(background());
  #waiting = 0;
  #filling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** How many VMs wait. */
  get length(): number {
    return [...this.#kinds.values()].reduce((sum, { ready }) => sum + ready.length, 0);
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
    this.#fillSoon();
  }

  /** A VM whose guest is stopped; the caller resumes it. Undefined when none is ready. */
  take(want: TemplateWant): ManagedVm | undefined {
    const { settings, observer } = this.#options;
    if (settings.size === 0) return undefined;
    const kind = this.#kindOf(want);
    kind.askedAtMs = performance.now();
    for (let entry = kind.ready.shift(); entry !== undefined; entry = kind.ready.shift()) {
      if (this.#isUsable(entry.vm, entry.templateId)) {
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

  #isUsable(vm: ManagedVm, templateId: string): boolean {
    return (
      this.#options.machines.running(vm.record.id) === vm && this.#options.templates.isCurrent(templateId)
    );
  }

  #fillSoon(): void {
    if (this.#filling !== undefined || this.#life.signal.aborted || this.#options.settings.size === 0) return;
    this.#filling = this.#fill()
      .catch((error: unknown) => {
        if (!this.#life.signal.aborted) this.#options.observer?.poolFillFailed();
        this.#options.logger.warn('the pool cannot be filled now', { error: messageOf(error) });
        this.#later(pauseMs);
      })
      .finally(() => {
        this.#filling = undefined;
      });
  }

  #later(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#fillSoon();
    }, afterMs);
    this.#timer.unref();
  }

  async #fill(): Promise<void> {
    const { settings, availableBytes, templates } = this.#options;
    for (;;) {
      await this.#dropUnwanted();
      if (this.#waiting > 0 || this.#life.signal.aborted) return;
      if ((await availableBytes()) < settings.memoryReserveBytes) {
        if (this.length > 0) this.#options.logger.info('memory is short; the pool is emptied', {});
        await this.drain('memory');
        this.#later(pauseMs);
        return;
      }
      // Looked at again now and then, for the memory of the node and what nobody asks for any more.
      this.#later(pauseMs);
      const kind = [...this.#kinds.values()].find(({ ready }) => ready.length < settings.size);
      if (kind === undefined || this.length >= settings.sizeMax) return;
      const template = await templates.find(this.#life, kind.want);
      if (template === undefined) return;
      await this.#add(kind, template);
    }
  }

  async #add(kind: Kind, template: Template): Promise<void> {
    const ctx = withTimeout(this.#life, fillTimeoutMs, 'filling the pool');
    try {
      const vm = await this.#clone(ctx, kind.want, template);
      try {
        await this.#makeReady(ctx, vm);
      } catch (error) {
        await this.#drop(vm);
        throw error;
      }
      this.#keep(kind, vm, template.id);
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
    try {
      return await machines.make(ctx, request, { kind: 'clone', image: templates.image(template) });
    } catch (error) {
      // A shutdown says nothing about the template.
      throwIfDone(ctx);
      await templates.refuse(template, error);
      throw error;
    }
  }

  async #makeReady(ctx: Context, vm: ManagedVm): Promise<void> {
    await this.#options.rehearsal.rehearse(ctx, vm.agentSocketPath, vm.spareNic);
    await vm.pause(ctx);
  }

  #keep(kind: Kind, vm: ManagedVm, templateId: string): void {
    kind.ready.push({ vm, templateId });
    this.#options.observer?.poolFilled(kind.want.domain);
    void vm.exited.then(() => {
      const at = kind.ready.findIndex((entry) => entry.vm === vm);
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
      for (const entry of old) {
        kind.ready.splice(kind.ready.indexOf(entry), 1);
        await this.#giveUp(entry.vm, isIdle ? 'idle' : 'stale');
      }
      if (isIdle) this.#kinds.delete(key);
    }
  }

  async #giveUp(vm: ManagedVm, why: PoolDrop): Promise<void> {
    this.#options.observer?.poolDropped(vm.record.domain, why);
    await this.#drop(vm);
  }

  async #drop(vm: ManagedVm): Promise<void> {
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
