import type { Context } from '../../lib/base/context.js';
import { throwIfDone } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import type { BuildPhaseListener, Machines, TemplateFacts, VmFacts, VmReport } from '../../lib/cri/ports.js';
import { defaultDomain } from '../../lib/model/vm.js';
import type { VmRecord } from '../../lib/model/vm.js';

/** Machines without hypervisors: templates by domain, and whatever VMs a test puts here. */
export class FakeMachines implements Machines {
  readonly calls: string[] = [];
  readonly known: TemplateFacts[] = [];
  readonly all: VmFacts[] = [];
  /** Between the phases of a build; a test can wait or fail here. */
  beforeSave: (ctx: Context) => Promise<void> = () => Promise.resolve();
  #nextId = 1;

  templates(): Promise<TemplateFacts[]> {
    return Promise.resolve([...this.known]);
  }

  async buildTemplate(
    ctx: Context,
    domain: string,
    listener: BuildPhaseListener,
  ): Promise<{ id: string; existed: boolean }> {
    this.calls.push(`build ${domain}`);
    const there = this.known.find((template) => template.domain === domain);
    if (there !== undefined) return { id: there.id, existed: true };
    return { id: await this.#make(ctx, domain, listener), existed: false };
  }

  async rotateTemplate(ctx: Context, domain: string, listener: BuildPhaseListener): Promise<string> {
    this.calls.push(`rotate ${domain}`);
    const id = await this.#make(ctx, domain, listener);
    const before = this.known.findIndex((template) => template.domain === domain && template.id !== id);
    if (before >= 0) this.known.splice(before, 1);
    return id;
  }

  removeTemplate(id: string): Promise<boolean> {
    this.calls.push(`remove ${id}`);
    const at = this.known.findIndex((template) => template.id === id);
    if (at >= 0) this.known.splice(at, 1);
    return Promise.resolve(at >= 0);
  }

  vms(ctx: Context): Promise<VmFacts[]> {
    throwIfDone(ctx);
    return Promise.resolve([...this.all]);
  }

  describeVm(ctx: Context, id: string): Promise<VmReport> {
    throwIfDone(ctx);
    const facts = this.all.find(({ record }) => record.id === id);
    if (facts === undefined) return Promise.reject(new HerkosError('NotFound', `there is no VM ${id}`));
    return Promise.resolve({ role: facts.role, record: facts.record, machine: { devices: [] } });
  }

  /** Adds a VM. */
  add(id: string, role: VmFacts['role'], more: Partial<VmRecord> = {}): VmFacts {
    const record: VmRecord = { ...exampleRecord, id, sandboxId: role === 'pod' ? id : '', ...more };
    const process = { startedAtMs: 1_700_000_000_000, pssBytes: 32 * 1024 * 1024 };
    const facts: VmFacts = { record, role, size: { vcpus: 2, memoryMib: 512 }, process };
    this.all.push(facts);
    return facts;
  }

  async #make(ctx: Context, domain: string, listener: BuildPhaseListener): Promise<string> {
    for (const phase of ['preparing', 'booting'] as const) listener(phase);
    await this.beforeSave(ctx);
    for (const phase of ['saving', 'verifying'] as const) listener(phase);
    const id = String(this.#nextId++).padStart(16, 'a');
    this.known.push({ ...exampleTemplate, id, domain });
    return id;
  }
}

const exampleTemplate: Omit<TemplateFacts, 'id' | 'domain'> = {
  shape: { vcpus: 1, memoryMib: 256 },
  accelerator: 'tcg',
  builtAtMs: 1_700_000_000_123,
  uses: 7,
  memoryBytesUsed: 40 * 1024 * 1024,
};

const exampleRecord: Omit<VmRecord, 'id' | 'sandboxId'> = {
  schemaVersion: 1,
  domain: defaultDomain,
  driver: 'fake',
  shape: { vcpus: 1, memoryMib: 256 },
  accelerator: 'tcg',
  source: 'clone',
  uid: 1_900_000_001,
  netns: 'test-1',
  tap: 'tap0',
  cgroupParent: '/kubepods/pod1',
  pid: 4242,
  processStartTicks: '12345',
};
