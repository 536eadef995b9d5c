import { randomBytes } from 'node:crypto';

import type { Context } from '../../base/context.js';
import { abortable, background, underDeadline } from '../../base/context.js';
import { HerkosError } from '../../base/errors.js';
import { newId } from '../../base/ids.js';
import type { Logger } from '../../base/logger.js';
import { Rollback } from '../../base/rollback.js';
import { MIB } from '../../base/units.js';
import type { Machines } from '../machines.js';
import type { Rehearsal, TemplateImage } from '../ports.js';
import type { BuildProgress } from './build-progress.js';
import type { Template, TemplateFiles } from './template-files.js';
import type { TemplateWant } from './slots.js';

export interface TemplateMakerParts {
  readonly machines: Machines;
  readonly files: TemplateFiles;
  readonly rehearsal: Rehearsal;
  readonly poolCgroupParent: string;
  readonly logger: Logger;
}

const removeTimeoutMs = 30_000;

/** Turns a VM that has booted, and has rehearsed what pods do, into a template. */
export class TemplateMaker {
  readonly #parts: TemplateMakerParts;

  constructor(parts: TemplateMakerParts) {
    this.#parts = parts;
  }

  /** A failure leaves nothing behind. */
  async make(ctx: Context, key: string, want: TemplateWant, steps: BuildProgress): Promise<Template> {
    const { files, machines, logger } = this.#parts;
    const startedMs = performance.now();
    logger.info('building a template', { domain: want.domain, ...want.shape });
    await files.prepare(ctx);
    const id = randomBytes(8).toString('hex');
    const gid = machines.takeGid();
    const undo = new Rollback();
    undo.push('remove what there is of a template', () => this.unmake({ id, gid }));
    try {
      const unfinished = await files.begin(ctx, id, gid, want.shape.memoryMib * MIB);
      await this.#fill(ctx, want, id, unfinished.image, steps);
      steps.enter('verifying');
      const template = await files.finish(ctx, unfinished, { id, key, gid, builtAt: Date.now(), ...want });
      logger.info('a template is ready', {
        template: id,
        domain: want.domain,
        ms: Math.round(performance.now() - startedMs),
      });
      return template;
    } catch (error) {
      throw await undo.undo(error);
    }
  }

  /** Of a template that nobody finds any more. */
  async unmake({ id, gid }: Pick<Template, 'id' | 'gid'>): Promise<void> {
    const { files, machines } = this.#parts;
    await underDeadline(background(), removeTimeoutMs, 'removing a template', (step) =>
      files.removeGone(step, id),
    );
    machines.giveGid(gid);
  }

  /** Boots a VM into the image's memory and takes it down again. */
  async #fill(
    ctx: Context,
    want: TemplateWant,
    id: string,
    image: TemplateImage,
    steps: BuildProgress,
  ): Promise<void> {
    const { machines, rehearsal, poolCgroupParent } = this.#parts;
    const request = {
      id: newId(),
      sandboxId: '',
      source: 'cold',
      template: { id, gid: image.gid },
      cgroupParent: poolCgroupParent,
      ...want,
    } as const;
    steps.enter('booting');
    const vm = await machines.make(ctx, request, { kind: 'template', image });
    try {
      const died = vm.exited.then(({ lastWords }) => {
        throw new HerkosError('Unavailable', `the template’s VM ended: ${lastWords}`);
      });
      const rehearsed = vm.resume(ctx).then(() => rehearsal.rehearse(ctx, vm.agentSocketPath, vm.spareNic));
      await abortable(ctx, Promise.race([rehearsed, died]));
      steps.enter('saving');
      await vm.saveTemplate(ctx, image);
    } finally {
      await underDeadline(background(), removeTimeoutMs, 'removing a template’s VM', (step) =>
        machines.unmake(step, vm.record),
      );
    }
  }
}
