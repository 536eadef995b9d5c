import type { Context } from '../base/context.js';
import { throwIfDone } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import { shortId } from '../base/ids.js';
import { KeyedLock } from '../base/keyed-lock.js';
import type { Logger } from '../base/logger.js';
import type { VmRecord, VmShape } from '../model/vm.js';
import { defaultDomain } from '../model/vm.js';
import type { PodVm, Swept, VmProvider, VmRequest } from '../pod/ports.js';
import { Machines } from './machines.js';
import type { MachineParts } from './machines.js';
import type { ManagedVm } from './managed-vm.js';
import { Pool } from './pool.js';
import type { Rehearsal, VmObserver } from './ports.js';
import { checkShape } from './sizing.js';
import { Sweep } from './sweep.js';
import type { TemplateFiles } from './template/template-files.js';
import { Templates } from './template/templates.js';
import type { TemplateWant } from './template/slots.js';

export interface VmManagerOptions extends MachineParts {
  readonly files: TemplateFiles;
  readonly rehearsal: Rehearsal;
  /** Bytes that the node could give to new processes now. */
  readonly availableBytes: () => Promise<number>;
  /** Bytes of the node's memory that a VM uses. */
  readonly bytesUsed: (record: VmRecord) => Promise<number>;
  readonly observer?: VmObserver | undefined;
}

/**
 * Which VM a pod gets: one that waits in the pool, else a clone of a template, else one that boots.
 * Each starts as the node's smallest machine; the pod has it brought to its size.
 */
export class VmManager implements VmProvider {
  readonly #options: VmManagerOptions;
  readonly #machines: Machines;
  readonly #templates: Templates;
  readonly #pool: Pool;
  readonly #logger: Logger;
  /** One call at a time for each sandbox. */
  readonly #lock = new KeyedLock();

  constructor(options: VmManagerOptions) {
    const { settings, driver, files, rehearsal, logger, availableBytes, bytesUsed, observer } = options;
    this.#options = options;
    this.#logger = logger;
    this.#machines = new Machines(options);
    const machines = this.#machines;
    const cgroupParent = settings.poolCgroupParent;
    this.#templates = new Templates({
      settings: settings.templates,
      driver,
      machines,
      files,
      rehearsal,
      poolCgroupParent: cgroupParent,
      logger,
      observer,
    });
    this.#pool = new Pool({
      settings: settings.pool,
      machines,
      templates: this.#templates,
      rehearsal,
      cgroupParent,
      availableBytes,
      bytesUsed,
      logger,
      observer,
    });
  }

  /** For those who look after them: operators, and tests. */
  get templates(): Templates {
    return this.#templates;
  }

  get pool(): Pool {
    return this.#pool;
  }

  /** Everything that is known about the VMs of this node. */
  get records(): readonly VmRecord[] {
    return this.#machines.records;
  }

  /** The VM that runs under this id, whoever uses it. */
  running(id: string): ManagedVm | undefined {
    return this.#machines.running(id);
  }

  /** What every VM starts as. */
  get bootShape(): VmShape {
    const { vcpusDefault, memoryMibDefault } = this.#options.settings.sizing;
    return { vcpus: vcpusDefault, memoryMib: memoryMibDefault };
  }

  /** Ahead of the first pod; nobody waits for it. */
  async warmUp(ctx: Context): Promise<void> {
    if (!this.#templates.isEnabled) return;
    try {
      const want = await this.want(ctx, defaultDomain);
      await this.#templates.build(ctx, want);
      this.#pool.want(want);
    } catch (error) {
      if (ctx.signal.aborted) return;
      this.#logger.warn('the first template could not be made ahead', { error: messageOf(error) });
    }
  }

  async want(ctx: Context, domain: string): Promise<TemplateWant> {
    const { accelerator } = await this.#options.driver.probe(ctx);
    return { domain, shape: this.bootShape, accelerator };
  }

  async acquire(ctx: Context, request: VmRequest): Promise<PodVm> {
    const { sandboxId, shape } = request;
    checkShape(this.#options.settings.sizing, shape);
    await this.#machines.load();
    return this.#pool.foreground(() =>
      this.#lock.run(ctx, sandboxId, async () => {
        if (this.#machines.ofSandbox(sandboxId) !== undefined)
          throw new HerkosError('AlreadyExists', `sandbox ${sandboxId} has a VM already`);
        const want = await this.want(ctx, request.domain);
        return (
          (await this.#fromPool(ctx, want, request)) ??
          (await this.#clone(ctx, want, request)) ??
          (await this.#boot(ctx, want, request))
        );
      }),
    );
  }

  async replaceCold(ctx: Context, sandboxId: string, why: string): Promise<PodVm> {
    return this.#lock.run(ctx, sandboxId, async () => {
      const record = this.#machines.ofSandbox(sandboxId);
      if (record === undefined) throw new HerkosError('NotFound', `sandbox ${sandboxId} has no VM`);
      const used = (await this.#templates.list()).find(({ template }) => template.id === record.template?.id);
      // One of the pool has come up before: whatever became of it then, its template was not to blame.
      if (used === undefined || record.source === 'pool')
        this.#logger.warn('a clone did not come up; its pod boots cold', { sandbox: sandboxId, why });
      else await this.#templates.refuse(used.template, why);
      this.#options.observer?.cloneReplaced(record.domain);
      return this.#machines.remake(ctx, record.id);
    });
  }

  async adopt(ctx: Context, sandboxId: string): Promise<PodVm | undefined> {
    await this.#machines.load();
    return this.#lock.run(ctx, sandboxId, async () => {
      const record = this.#machines.ofSandbox(sandboxId);
      return record === undefined ? undefined : this.#machines.adopt(ctx, record);
    });
  }

  async destroyGone(ctx: Context, sandboxId: string): Promise<void> {
    await this.#machines.load();
    await this.#lock.run(ctx, sandboxId, async () => {
      const record = this.#machines.ofSandbox(sandboxId);
      if (record !== undefined) await this.#machines.unmake(ctx, record);
    });
  }

  async sweep(ctx: Context, knownSandboxIds: ReadonlySet<string>): Promise<Swept> {
    await this.#machines.load();
    const sweep = new Sweep(ctx, this.#logger);
    if (!this.#templates.isEnabled)
      await sweep.attempt('templates that are switched off', () => this.#templates.giveBack());
    // What waited in the pool of an earlier daemon, or was becoming its template, belongs to no sandbox.
    const ownerless = this.#machines.inherited.filter(({ sandboxId }) => !knownSandboxIds.has(sandboxId));
    await Promise.all(
      ownerless.map((record) =>
        sweep.remove(`vm ${shortId(record.id)}`, (step) => this.#machines.unmake(step, record)),
      ),
    );
    try {
      await this.#machines.sweepUnknown(ctx, sweep);
    } catch (error) {
      // What was found by then must be told all the same; the rest is found at the next start.
      this.#logger.error('cannot look for what no record explains', { error: messageOf(error) });
    }
    return sweep.result;
  }

  /** The daemon shuts down: VMs of pods go on, those of no pod end. */
  async release(): Promise<void> {
    await this.#pool.close();
    await this.#templates.close();
    await this.#machines.release();
  }

  async #fromPool(ctx: Context, want: TemplateWant, request: VmRequest): Promise<ManagedVm | undefined> {
    const vm = await this.#pool.take(ctx, want);
    if (vm === undefined) return undefined;
    try {
      await this.#machines.assign(ctx, vm, request.sandboxId, request.cgroupParent);
      request.placeUser?.begin({ netnsPath: vm.netnsPath, tap: vm.tap });
      return vm;
    } catch (error) {
      await this.#pool.discard(vm);
      throwIfDone(ctx);
      this.#logger.warn('a VM of the pool could not be used', { vm: vm.record.id, error: messageOf(error) });
      return undefined;
    }
  }

  async #clone(ctx: Context, want: TemplateWant, request: VmRequest): Promise<ManagedVm | undefined> {
    const template = await this.#templates.find(ctx, want);
    if (template === undefined) return undefined;
    this.#pool.want(want);
    return this.#machines.make(
      ctx,
      { ...machineFor(want, request), source: 'clone', template: { id: template.id, gid: template.gid } },
      { kind: 'clone', image: this.#templates.image(template) },
      {
        placeUser: request.placeUser,
        onCloneFailed: async (error) => {
          throwIfDone(ctx);
          await this.#templates.refuse(template, error);
          this.#options.observer?.cloneReplaced(template.domain);
        },
      },
    );
  }

  async #boot(ctx: Context, want: TemplateWant, request: VmRequest): Promise<ManagedVm> {
    const machine = { ...machineFor(want, request), source: 'cold' } as const;
    return this.#machines.make(ctx, machine, { kind: 'own' }, { placeUser: request.placeUser });
  }
}

function machineFor(
  want: TemplateWant,
  request: VmRequest,
): TemplateWant & { readonly id: string; readonly sandboxId: string; readonly cgroupParent: string } {
  const { sandboxId, cgroupParent } = request;
  return { ...want, id: sandboxId, sandboxId, cgroupParent };
}
