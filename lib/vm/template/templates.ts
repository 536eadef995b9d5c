import { createHash } from 'node:crypto';

import type { Context } from '../../base/context.js';
import {
  abortable,
  background,
  throwIfDone,
  underDeadline,
  withCancel,
  withTimeout,
} from '../../base/context.js';
import { HerkosError, messageOf } from '../../base/errors.js';
import { KeyedLock } from '../../base/keyed-lock.js';
import { once } from '../../base/once.js';
import { MIB } from '../../base/units.js';
import type { BuildPhaseListener } from '../../cri/ports.js';
import type { TemplateImage, VmDriver, VmObserver } from '../ports.js';
import type { TemplateSettings } from '../settings.js';
import { BuildProgress } from './build-progress.js';
import { Slots } from './slots.js';
import type { BuildReport, Slot, TemplateReport, TemplateWant } from './slots.js';
import type { Template } from './template-files.js';
import { TemplateMaker } from './template-maker.js';
import type { TemplateMakerParts } from './template-maker.js';

export interface TemplatesOptions extends TemplateMakerParts {
  readonly settings: TemplateSettings;
  readonly driver: VmDriver;
  readonly observer?: VmObserver | undefined;
}

/** After a build that failed, pods boot cold for so long before another is tried. */
const retryAfterMs = 30_000;
const verifyTimeoutMs = 60_000;

/**
 * The templates of this node, by what they are good for. A template that is missing is built, while those
 * who need it wait; one that is broken, or cannot be built, means a cold boot: never wrong, only slower.
 */
export class Templates {
  readonly #options: TemplatesOptions;
  readonly #slots = new Slots();
  readonly #lock = new KeyedLock();
  readonly #maker: TemplateMaker;
  readonly #life = withCancel(background());
  readonly #load = once(() => this.#readAll());

  constructor(options: TemplatesOptions) {
    this.#options = options;
    this.#maker = new TemplateMaker(options);
  }

  get isEnabled(): boolean {
    return this.#options.settings.enabled;
  }

  /** What a VM may be cloned from; undefined: boot it cold. */
  async find(ctx: Context, want: TemplateWant): Promise<Template | undefined> {
    if (!this.isEnabled) return undefined;
    try {
      await underDeadline(ctx, this.#options.settings.waitMsMax, 'looking at the templates there are', () =>
        this.#load(),
      );
      const key = await this.#keyOf(ctx, want);
      const slot = this.#slots.of(key);
      slot.askedAtMs = performance.now();
      await this.#retireOthers(key, want);
      const template = await this.#checked(ctx, key, slot, want);
      slot.uses += 1;
      this.#rotateIfDue(key, slot, want);
      return template;
    } catch (error) {
      throwIfDone(ctx);
      this.#options.logger.warn('there is no template; the pod boots cold', {
        domain: want.domain,
        why: messageOf(error),
      });
      return undefined;
    }
  }

  /** Of the template that a VM would be cloned from now; cheaper than `find`, and builds none. */
  async currentId(ctx: Context, want: TemplateWant): Promise<string | undefined> {
    return this.#slots.of(await this.#keyOf(ctx, want)).template?.id;
  }

  image(template: Template): TemplateImage {
    return this.#options.files.image(template);
  }

  /** A clone of it did not come up, or its files are not what they were: nobody uses it again. */
  async refuse(template: Template, why: unknown): Promise<void> {
    const slot = this.#slots.of(template.key);
    // Another has taken its place, and it went: nothing was wrong with it.
    if (slot.template?.id !== template.id) return;
    this.#options.logger.warn('a template is refused; the pod boots cold', {
      template: template.id,
      domain: template.domain,
      why: messageOf(why),
    });
    this.#options.observer?.templateRefused(template.domain);
    slot.template = undefined;
    await this.#remove(template);
  }

  /**
   * Builds what is missing, now.
   * @param listener hears the phases of the build; nothing when there is a template already
   * @throws what kept it from being built
   */
  async build(ctx: Context, want: TemplateWant, listener?: BuildPhaseListener): Promise<Template> {
    await abortable(ctx, this.#load());
    const key = await this.#keyOf(ctx, want);
    const slot = this.#slots.of(key);
    return slot.template ?? (await this.#buildNow(ctx, key, slot, want, listener));
  }

  /** Builds it anew; the old one is used until then. */
  async rotate(ctx: Context, want: TemplateWant, listener?: BuildPhaseListener): Promise<Template> {
    await abortable(ctx, this.#load());
    const key = await this.#keyOf(ctx, want);
    return this.#buildNow(ctx, key, this.#slots.of(key), want, listener);
  }

  /** False when there is none of this id. */
  async remove(id: string): Promise<boolean> {
    await this.#load();
    for (const slot of this.#slots.all) {
      if (slot.template?.id !== id) continue;
      const { template } = slot;
      slot.template = undefined;
      await this.#remove(template);
      return true;
    }
    return false;
  }

  /**
   * Templates are switched off: what an earlier daemon built would only take memory. Before any new VM, which
   * could otherwise be given the number that a template's group still has.
   */
  async giveBack(): Promise<void> {
    const { files, machines, logger } = this.#options;
    const templates = await files.load(background());
    for (const { gid } of templates) machines.reserveGid(gid);
    for (const template of templates) {
      await this.#remove(template);
      logger.info('a template is removed, as templates are switched off', { template: template.id });
    }
  }

  async list(): Promise<TemplateReport[]> {
    await this.#load();
    return this.known;
  }

  /** Those that are known by now; before the first look at the disk, none. */
  get known(): TemplateReport[] {
    return this.#slots.known;
  }

  builds(): BuildReport[] {
    return this.#slots.builds;
  }

  /** True while the template is the one that new VMs of its kind are made of. */
  isCurrent(id: string): boolean {
    return this.#slots.all.some(({ template }) => template?.id === id);
  }

  /** Builds end; nothing of them is left behind. */
  async close(): Promise<void> {
    this.#life.cancel(new HerkosError('Aborted', 'the daemon shuts down'));
    await this.settle();
  }

  /** Waits for builds that have begun. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#slots.all.flatMap(({ building }) => building ?? []));
  }

  async #keyOf(ctx: Context, { domain, shape, accelerator }: TemplateWant): Promise<string> {
    const machine = await this.#options.driver.machineKey(
      ctx,
      shape,
      accelerator,
      this.#options.machines.isMergeable(domain),
    );
    return createHash('sha256').update(JSON.stringify({ domain, machine })).digest('hex');
  }

  /** Somebody asks for it: an earlier failure does not count. */
  async #buildNow(
    ctx: Context,
    key: string,
    slot: Slot,
    want: TemplateWant,
    listener: BuildPhaseListener = () => undefined,
  ): Promise<Template> {
    slot.notBeforeMs = 0;
    const building = this.#build(key, slot, want);
    const follow = slot.progress?.steps.follow(listener, () => abortable(ctx, building));
    return follow ?? abortable(ctx, building);
  }

  #build(key: string, slot: Slot, want: TemplateWant): Promise<Template> {
    if (slot.building !== undefined) return slot.building;
    const { settings, logger, observer } = this.#options;
    if (performance.now() < slot.notBeforeMs)
      return Promise.reject(new HerkosError('Unavailable', 'the last try to build a template failed'));
    const steps = new BuildProgress();
    const startedMs = performance.now();
    slot.progress = { want, steps, startedMs };
    // No caller's end may end it: others wait for it, and the next pod will want it.
    const ctx = withTimeout(this.#life, settings.buildTimeoutMs, 'building a template');
    slot.building = this.#makeRoom(slot, want)
      .then(() => this.#maker.make(ctx, key, want, steps))
      .then(async (template) => {
        const before = slot.template;
        slot.template = template;
        slot.uses = 0;
        if (before !== undefined) await this.#remove(before);
        observer?.templateBuilt(want.domain, performance.now() - startedMs, true);
        return template;
      })
      .catch((error: unknown) => {
        slot.notBeforeMs = performance.now() + retryAfterMs;
        throw error;
      })
      .finally(() => {
        ctx.cancel();
        slot.building = undefined;
        slot.progress = undefined;
      });
    slot.building.catch((error: unknown) => {
      if (this.#life.signal.aborted) return;
      observer?.templateBuilt(want.domain, performance.now() - startedMs, false);
      logger.error('a template could not be built; pods boot cold', {
        domain: want.domain,
        error: messageOf(error),
      });
    });
    return slot.building;
  }

  /** As long as it may take; who comes late to a build that takes long waits no longer than the others. */
  async #awaitBuild(ctx: Context, key: string, slot: Slot, want: TemplateWant): Promise<Template> {
    const building = this.#build(key, slot, want);
    const passedMs = performance.now() - (slot.progress?.startedMs ?? performance.now());
    const leftMs = Math.max(0, this.#options.settings.waitMsMax - passedMs);
    return underDeadline(ctx, leftMs, 'waiting for a template that is being built', () => building);
  }

  /** Where there is no room for another, its predecessor goes first, or one that nobody has asked for lately. */
  async #makeRoom(slot: Slot, { shape }: TemplateWant): Promise<void> {
    const { files, logger, settings } = this.#options;
    for (const old of slot.template === undefined ? this.#slots.idle(settings.idleMsMin) : [slot]) {
      const { template } = old;
      if (template === undefined) continue;
      if (await files.hasRoom(shape.memoryMib * MIB)) return;
      logger.info('a template makes room for another', { template: template.id, domain: template.domain });
      old.template = undefined;
      await this.#remove(template);
    }
  }

  /** A hypervisor or guest that was replaced while the daemon runs leaves a template that nobody can use. */
  async #retireOthers(key: string, { domain, shape, accelerator }: TemplateWant): Promise<void> {
    for (const slot of this.#slots.all) {
      const { template } = slot;
      if (template === undefined || template.key === key) continue;
      const isSameWant =
        template.domain === domain &&
        template.accelerator === accelerator &&
        template.shape.vcpus === shape.vcpus &&
        template.shape.memoryMib === shape.memoryMib;
      if (!isSameWant) continue;
      slot.template = undefined;
      await this.#remove(template);
    }
  }

  #rotateIfDue(key: string, slot: Slot, want: TemplateWant): void {
    const { settings } = this.#options;
    if (slot.template === undefined || slot.building !== undefined) return;
    const isOld = Date.now() - slot.template.builtAt > settings.ageMsMax;
    if ((!isOld && slot.uses < settings.usesMax) || performance.now() < slot.notBeforeMs) return;
    // A failure is logged where it happens; the old one goes on meanwhile.
    this.#build(key, slot, want).catch(() => undefined);
  }

  /** One that is as it was built; what is found broken is refused. */
  async #checked(ctx: Context, key: string, slot: Slot, want: TemplateWant): Promise<Template> {
    for (;;) {
      const template = slot.template ?? (await this.#awaitBuild(ctx, key, slot, want));
      try {
        await this.#options.files.check(template);
        return template;
      } catch (error) {
        throwIfDone(ctx);
        // It was replaced while it was looked at.
        if (slot.template !== undefined && slot.template.id !== template.id) continue;
        await this.refuse(template, error);
        throw error;
      }
    }
  }

  async #remove(template: Template): Promise<void> {
    try {
      await this.#maker.unmake(template);
    } catch (error) {
      // Its group stays taken: the files may still be there.
      this.#options.logger.error('a template cannot be removed', {
        template: template.id,
        error: messageOf(error),
      });
    }
  }

  /** What an earlier daemon built is used again, once it has been read and found as it was. */
  async #readAll(): Promise<void> {
    const { files, machines, logger, observer } = this.#options;
    await machines.load();
    await this.#lock.run(background(), 'load', async () => {
      await files.prepare(background());
      const found = await files.load(background());
      // All of them first: to read one takes long, and VMs get users meanwhile.
      for (const { gid } of found) machines.reserveGid(gid);
      for (const template of found) {
        try {
          await underDeadline(background(), verifyTimeoutMs, 'verifying a template', (ctx) =>
            files.verify(ctx, template),
          );
          const slot = this.#slots.of(template.key);
          if ((await this.#keyOf(background(), template)) !== template.key)
            throw new Error('the guest image, the hypervisor or the machine has changed since');
          if (slot.template !== undefined) throw new Error('there are two of its kind');
          slot.template = template;
        } catch (error) {
          observer?.templateRefused(template.domain);
          logger.warn('a template of an earlier daemon is refused', {
            template: template.id,
            why: messageOf(error),
          });
          await this.#remove(template);
        }
      }
    });
  }
}
