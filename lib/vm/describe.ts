/** The VM room as operators see it. */
import { stat } from 'node:fs/promises';

import type { Context } from '../base/context.js';
import { underDeadline } from '../base/context.js';
import { HerkosError, isErrno, messageOf } from '../base/errors.js';
import { shortId } from '../base/ids.js';
import { Semaphore } from '../base/semaphore.js';
import type { BuildPhaseListener, Machines, TemplateFacts, VmFacts, VmReport } from '../cri/ports.js';
import type { VmRecord } from '../model/vm.js';
import { processDetails, processFacts } from './process-facts.js';
import type { MachineReport } from './ports.js';
import type { TemplateWant } from './template/slots.js';
import type { Templates } from './template/templates.js';

/** What is looked at: a VmManager. */
export interface Inspected {
  readonly records: readonly VmRecord[];
  readonly templates: Templates;
  want(ctx: Context, domain: string): Promise<TemplateWant>;
  /** The VM that runs under this id. */
  running(id: string): { describe(ctx: Context): Promise<MachineReport> } | undefined;
}

/** A hypervisor that does not answer its monitor must not hold the list up. */
const describeTimeoutMs = 3_000;
/** The kernel walks a process's page tables to sum its memory up: not for all VMs at once. */
const describedAtOnceMax = 4;
/** As stat(2) counts `st_blocks`. */
const blockBytes = 512;

export class VmInspector implements Machines {
  readonly #vms: Inspected;

  constructor(vms: Inspected) {
    this.#vms = vms;
  }

  async templates(): Promise<TemplateFacts[]> {
    const { templates } = this.#vms;
    // Nothing is mounted or read where they are switched off.
    if (!templates.isEnabled) return [];
    const reports = await templates.list();
    const builds = templates.builds();
    const there = reports.map(async ({ template, uses }) => {
      const { id, domain, shape, accelerator, builtAt: builtAtMs } = template;
      const memoryBytesUsed = await bytesUsed(template.memory.path);
      const phase = builds.find(({ templateId }) => templateId === id)?.phase;
      const facts = { id, domain, shape, accelerator, builtAtMs, uses, memoryBytesUsed };
      return phase === undefined ? facts : { ...facts, buildPhase: phase };
    });
    const first = builds.flatMap(({ want, templateId, phase }) =>
      templateId === undefined
        ? [{ id: '', ...want, builtAtMs: 0, uses: 0, memoryBytesUsed: 0, buildPhase: phase }]
        : [],
    );
    return [...(await Promise.all(there)), ...first];
  }

  async buildTemplate(
    ctx: Context,
    domain: string,
    listener: BuildPhaseListener,
  ): Promise<{ id: string; existed: boolean }> {
    const want = await this.#wanted(ctx, domain);
    let existed = true;
    const { id } = await this.#vms.templates.build(ctx, want, (phase) => {
      existed = false;
      listener(phase);
    });
    return { id, existed };
  }

  async rotateTemplate(ctx: Context, domain: string, listener: BuildPhaseListener): Promise<string> {
    const want = await this.#wanted(ctx, domain);
    return (await this.#vms.templates.rotate(ctx, want, listener)).id;
  }

  async removeTemplate(id: string): Promise<boolean> {
    const { templates } = this.#vms;
    return templates.isEnabled && (await templates.remove(id));
  }

  async vms(ctx: Context): Promise<VmFacts[]> {
    const turns = new Semaphore(describedAtOnceMax);
    return Promise.all(this.#vms.records.map((record) => turns.run(ctx, () => this.#facts(ctx, record))));
  }

  async describeVm(ctx: Context, id: string): Promise<VmReport> {
    const record = this.#vms.records.find((one) => one.id === id);
    if (record === undefined) throw new HerkosError('NotFound', `there is no VM ${shortId(id)}`);
    const [machine, process] = await Promise.all([
      this.#report(ctx, record).catch((error: unknown) => ({ unknown: messageOf(error) })),
      record.pid === 0 ? undefined : processDetails(record.pid, record.processStartTicks),
    ]);
    return {
      role: roleOf(record),
      record,
      machine: machine ?? { unknown: 'it is being made, or has ended' },
      ...(process === undefined ? {} : { process }),
      ...(await this.#templateOf(record)),
    };
  }

  async #wanted(ctx: Context, domain: string): Promise<TemplateWant> {
    if (!this.#vms.templates.isEnabled)
      throw new HerkosError(
        'FailedPrecondition',
        'templates are switched off on this node; set templates = true in [vm] of the configuration',
      );
    return this.#vms.want(ctx, domain);
  }

  async #facts(ctx: Context, record: VmRecord): Promise<VmFacts> {
    const { pid, processStartTicks } = record;
    const [report, process] = await Promise.all([
      // One that ends or hangs meanwhile is listed all the same.
      this.#report(ctx, record).catch(() => undefined),
      pid === 0 ? undefined : processFacts(pid, processStartTicks),
    ]);
    return {
      record,
      role: roleOf(record),
      ...(report === undefined ? {} : { size: report.size }),
      ...(process === undefined ? {} : { process }),
    };
  }

  async #report(ctx: Context, { id }: VmRecord): Promise<MachineReport | undefined> {
    const vm = this.#vms.running(id);
    if (vm === undefined) return undefined;
    return underDeadline(ctx, describeTimeoutMs, 'the answer of a VM', (step) => vm.describe(step));
  }

  /** Is what it was cloned from still what new VMs are cloned from? */
  async #templateOf({ template }: VmRecord): Promise<Record<string, unknown>> {
    if (template === undefined) return {};
    const { id } = template;
    const known = this.#vms.templates.isEnabled ? await this.templates() : [];
    const facts = known.find((one) => one.id === id);
    return { template: facts === undefined ? { id, current: false } : { ...facts, current: true } };
  }
}

/** A record says it by what it names: a pod's VM its sandbox, one of the pool how it came to be. */
export function roleOf({ sandboxId, source }: VmRecord): VmFacts['role'] {
  if (sandboxId !== '') return 'pod';
  return source === 'cold' ? 'template' : 'pool';
}

/** A sparse file has holes, and pages that only a clone has written are the clone's. */
export async function bytesUsed(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * blockBytes;
  } catch (error) {
    // It was removed a moment ago.
    if (isErrno(error, 'ENOENT')) return 0;
    throw error;
  }
}
