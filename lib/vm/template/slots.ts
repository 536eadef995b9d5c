/** What is known of each kind of template: the one there is, the one that is being built, and who asked. */
import type { BuildPhase } from '../../cri/ports.js';
import type { Accelerator, VmShape } from '../../model/vm.js';
import type { BuildProgress } from './build-progress.js';
import type { Template } from './template-files.js';

/** What a VM is wanted for; equal wants may share a template. */
export interface TemplateWant {
  readonly domain: string;
  readonly shape: VmShape;
  readonly accelerator: Accelerator;
}

/** How a template stands; for people. */
export interface TemplateReport {
  readonly template: Template;
  /** VMs that were made of it since the daemon started. */
  readonly uses: number;
}

/** A build that runs; for people. */
export interface BuildReport {
  readonly want: TemplateWant;
  /** Of the template that it will take the place of. */
  readonly templateId: string | undefined;
  readonly phase: BuildPhase;
}

export interface Slot {
  template: Template | undefined;
  /** One build per key, whatever the load. */
  building: Promise<Template> | undefined;
  /** Of the build that runs. */
  progress: BuildRun | undefined;
  uses: number;
  /** performance.now() of the last time a pod asked. */
  askedAtMs: number;
  /** performance.now() before which no build is begun. */
  notBeforeMs: number;
}

interface BuildRun {
  readonly want: TemplateWant;
  readonly steps: BuildProgress;
  /** performance.now() */
  readonly startedMs: number;
}

/** By key: the digest of everything that clones must have in common with their template. */
export class Slots {
  readonly #slots = new Map<string, Slot>();

  get all(): readonly Slot[] {
    return [...this.#slots.values()];
  }

  of(key: string): Slot {
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    const slot: Slot = {
      template: undefined,
      building: undefined,
      progress: undefined,
      uses: 0,
      askedAtMs: performance.now(),
      notBeforeMs: 0,
    };
    this.#slots.set(key, slot);
    return slot;
  }

  get known(): TemplateReport[] {
    return this.all.flatMap(({ template, uses }) => (template === undefined ? [] : [{ template, uses }]));
  }

  get builds(): BuildReport[] {
    return this.all.flatMap(({ progress, template }) =>
      progress === undefined
        ? []
        : [{ want: progress.want, templateId: template?.id, phase: progress.steps.phase }],
    );
  }

  /** Those that no pod has asked for so long, and that nobody builds, the longest forgotten first. */
  idle(idleMsMin: number): Slot[] {
    return this.all
      .filter(
        ({ building, askedAtMs }) => building === undefined && performance.now() - askedAtMs > idleMsMin,
      )
      .sort((one, other) => one.askedAtMs - other.askedAtMs);
  }
}
