import type { Context } from '../base/context.js';
import { background, underDeadline } from '../base/context.js';
import { isId, shortId } from '../base/ids.js';
import type { Logger } from '../base/logger.js';
import { once } from '../base/once.js';
import { Rollback, allOrError } from '../base/rollback.js';
import type { Accelerator, VmRecord, VmShape, VmSource } from '../model/vm.js';
import { defaultDomain } from '../model/vm.js';
import { ManagedVm } from './managed-vm.js';
import type { PlaceUser } from '../pod/ports.js';
import type {
  CgroupFactory,
  CgroupLimits,
  NetnsFactory,
  RunningVm,
  VmDriver,
  VmMemory,
  VmStore,
} from './ports.js';
import type { VmSettings } from './settings.js';
import { hypervisorLimits } from './sizing.js';
import type { Sweep } from './sweep.js';
import { UidPool } from './uid-pool.js';

export interface MachineParts {
  readonly settings: VmSettings;
  readonly driver: VmDriver;
  readonly netns: NetnsFactory;
  readonly cgroups: CgroupFactory;
  readonly store: VmStore;
  readonly logger: Logger;
  /** VMs came or went. */
  readonly onChange?: () => void;
}

export interface MachineRequest {
  readonly id: string;
  readonly sandboxId: string;
  readonly domain: string;
  readonly shape: VmShape;
  readonly accelerator: Accelerator;
  readonly source: VmSource;
  readonly template?: { readonly id: string; readonly gid: number };
  readonly cgroupParent: string;
}

/** What happens while a machine is made. */
export interface MakeOptions {
  readonly placeUser?: PlaceUser | undefined;
  /** Its memory could not be had; when this resolves, the machine boots instead. */
  readonly onCloneFailed?: (error: unknown) => Promise<void>;
}

/** The least that the kernel takes. */
const cpuSharesMin = 2;
/** Undoing and sweeping must end, whatever hangs. */
const destroyTimeoutMs = 30_000;

/**
 * Makes, keeps and unmakes the VMs of this node, whoever uses them. A record is on disk before anything of
 * a VM exists, so that a daemon killed at any moment finds what it has to take over or take down.
 */
export class Machines {
  readonly #parts: MachineParts;
  readonly #uids: UidPool;
  readonly #records = new Map<string, VmRecord>();
  readonly #vms = new Map<string, ManagedVm>();
  /** Records of an earlier daemon that nobody has taken over yet. */
  readonly #inherited = new Set<string>();
  /** Groups of templates that are gone, while clones of them live. */
  readonly #retiredGids = new Set<number>();
  readonly #loadOnce = once(() => this.#readRecords());

  constructor(parts: MachineParts) {
    this.#parts = parts;
    this.#uids = new UidPool(parts.settings.uidFirst, parts.settings.uidCount);
  }

  get records(): readonly VmRecord[] {
    return [...this.#records.values()];
  }

  /** Reads all records, once. */
  async load(): Promise<void> {
    await this.#loadOnce();
  }

  /** A group that no VM has, for a template's files; kept until it is given back. */
  takeGid(): number {
    return this.#uids.take();
  }

  reserveGid(gid: number): void {
    this.#uids.reserve(gid);
    this.#retiredGids.delete(gid);
  }

  /** Its template is gone; nobody else gets the group while a process has it. */
  giveGid(gid: number): void {
    if (this.records.some(({ template }) => template?.gid === gid)) this.#retiredGids.add(gid);
    else this.#uids.give(gid);
  }

  /** What an earlier daemon left and nobody has taken over. */
  get inherited(): readonly VmRecord[] {
    return this.records.filter(({ id }) => this.#inherited.has(id));
  }

  ofSandbox(sandboxId: string): VmRecord | undefined {
    return this.records.find((record) => record.sandboxId === sandboxId);
  }

  running(id: string): ManagedVm | undefined {
    return this.#vms.get(id);
  }

  /**
   * Whether the kernel may merge pages of a new VM of this domain. Not while VMs live that another domain
   * left when its opting in was withdrawn: the kernel would merge theirs with these (S4).
   */
  isMergeable(domain: string): boolean {
    const others = this.records.some((record) => record.mergeable === true && record.domain !== domain);
    return !others && this.#parts.settings.mergeableDomains?.includes(domain) === true;
  }

  /** Makes a VM, which stands still; a failure leaves nothing behind. */
  async make(
    ctx: Context,
    request: MachineRequest,
    memory: VmMemory,
    options: MakeOptions = {},
  ): Promise<ManagedVm> {
    const { settings, driver } = this.#parts;
    const record: VmRecord = {
      schemaVersion: 1,
      ...request,
      mergeable: this.isMergeable(request.domain),
      driver: driver.name,
      uid: this.#uids.take(),
      netns: netnsName(settings.instance, request.id),
      tap: '',
      pid: 0,
      processStartTicks: '0',
    };
    const undo = new Rollback();
    // One undo for all: it takes down whatever of the VM there is.
    undo.push('remove what there is of the VM', () => this.#unmakeBounded(record));
    // CNI plugins that find no namespace leave their rules behind.
    undo.push('wait for who uses its place', () => options.placeUser?.end() ?? Promise.resolve());
    try {
      return await this.#build(ctx, record, memory, options);
    } catch (error) {
      throw await undo.undo(error);
    }
  }

  /** Starts the VM's process again, in the same place, from nothing: what it was before is lost. It stands still. */
  async remake(ctx: Context, id: string): Promise<ManagedVm> {
    const { driver, cgroups } = this.#parts;
    const before = this.#require(id);
    await this.#vms.get(id)?.kill(ctx);
    await driver.destroyGone(ctx, before);
    this.#vms.delete(id);
    const record = { ...bootedInstead(before), mergeable: this.isMergeable(before.domain) };
    await this.put(record);
    const limits = hypervisorLimits(record.shape);
    const cgroup = await cgroups.create(ctx, record.cgroupParent, record.id, limits);
    return this.#start(ctx, record, cgroup, { kind: 'own' });
  }

  /** Takes over the process of a record; undefined when it is gone. */
  async adopt(ctx: Context, record: VmRecord): Promise<ManagedVm | undefined> {
    const known = this.#vms.get(record.id);
    if (known !== undefined) return known;
    // Without a tap the daemon died before it could start a process.
    if (record.tap === '') return undefined;
    const running = await this.#parts.driver.adopt(ctx, record);
    if (running === undefined) return undefined;
    this.#inherited.delete(record.id);
    const { pid, processStartTicks } = running;
    if (record.pid === pid) return this.#manage(record, running);
    const found = { ...record, pid, processStartTicks };
    await this.put(found);
    return this.#manage(found, running);
  }

  /** A VM out of the pool becomes a sandbox's own, in the sandbox's cgroup. */
  async assign(ctx: Context, vm: ManagedVm, sandboxId: string, cgroupParent: string): Promise<void> {
    const { cgroups } = this.#parts;
    const before = this.#require(vm.record.id);
    const record: VmRecord = { ...before, sandboxId, source: 'pool', cgroupParent };
    // First the record: from here on a restart knows whose it is, and finds either cgroup empty.
    await this.put(record);
    vm.record = record;
    if (cgroupParent === before.cgroupParent)
      await cgroups.setLimits(ctx, cgroupParent, record.id, { cpuShares: 'default' });
    else {
      const cgroup = await cgroups.create(ctx, cgroupParent, record.id, hypervisorLimits(record.shape));
      await cgroups.enter(ctx, cgroup, record.pid);
      await cgroups.deleteGone(ctx, before.cgroupParent, record.id);
    }
  }

  /** In the order in which one thing keeps the next one busy: process, cgroup, namespace, record. */
  async unmake(ctx: Context, record: VmRecord): Promise<void> {
    const { driver, netns, cgroups, store, settings } = this.#parts;
    // What is known now may be newer than what the caller holds.
    const latest = this.#records.get(record.id) ?? record;
    await this.#vms.get(record.id)?.kill(ctx);
    await driver.destroyGone(ctx, latest);
    this.#vms.delete(record.id);
    // One that a crash left in the middle of its way out of the pool may have two.
    for (const parent of new Set([latest.cgroupParent, settings.poolCgroupParent]))
      await cgroups.deleteGone(ctx, parent, latest.id);
    await netns.deleteGone(ctx, latest.netns);
    await store.delete(latest.id);
    // Once only: a try that hung and was made again may end when another VM has got the number.
    if (this.#records.delete(latest.id)) this.#uids.give(latest.uid);
    this.#inherited.delete(latest.id);
    this.#parts.onChange?.();
    for (const gid of [...this.#retiredGids]) {
      this.#retiredGids.delete(gid);
      this.giveGid(gid);
    }
  }

  /** Removes processes, run directories and namespaces that no record explains. */
  async sweepUnknown(ctx: Context, sweep: Sweep): Promise<void> {
    const { driver, netns } = this.#parts;
    const ids = (await driver.list(ctx)).filter((id) => !this.#records.has(id));
    await Promise.all(
      ids.map((id) =>
        sweep.remove(`process or run directory ${shortId(id)}`, (step) =>
          this.unmake(step, this.#orphan(id)),
        ),
      ),
    );
    const found = await netns.list(ctx);
    // Only now: a namespace that has been made meanwhile has its record already.
    const explained = new Set(this.records.map((record) => record.netns));
    await Promise.all(
      found
        .filter((name) => !explained.has(name))
        .map((name) => sweep.remove(`network namespace ${name}`, (step) => netns.deleteGone(step, name))),
    );
  }

  /** The daemon shuts down: VMs go on. */
  async release(): Promise<void> {
    await Promise.all([...this.#vms.values()].map((vm) => vm.release()));
    this.#vms.clear();
  }

  async put(record: VmRecord): Promise<void> {
    this.#records.set(record.id, record);
    await this.#parts.store.put(record);
  }

  async #build(
    ctx: Context,
    first: VmRecord,
    memory: VmMemory,
    { placeUser, onCloneFailed }: MakeOptions,
  ): Promise<ManagedVm> {
    const { netns, cgroups } = this.#parts;
    await this.put(first);
    // Independent of each other, and both cost a few programs or file operations.
    const [network, cgroup] = await allOrError([
      netns.create(ctx, first.netns, first.uid),
      cgroups.create(ctx, first.cgroupParent, first.id, firstLimits(first)),
    ]);
    const named = { ...first, tap: network.tap };
    await this.put(named);
    placeUser?.begin({ netnsPath: network.path, tap: network.tap });
    try {
      return await this.#start(ctx, named, cgroup, memory);
    } catch (error) {
      if (onCloneFailed === undefined) throw error;
      await onCloneFailed(error);
      const cold = bootedInstead(named);
      await this.put(cold);
      return this.#start(ctx, cold, cgroup, { kind: 'own' });
    }
  }

  async #start(
    ctx: Context,
    named: VmRecord,
    cgroup: { readonly procsFiles: readonly string[] },
    memory: VmMemory,
  ): Promise<ManagedVm> {
    let record = named;
    const running = await this.#parts.driver.start(ctx, {
      record,
      cgroup,
      memory,
      onProcess: async ({ pid, processStartTicks }) => {
        record = { ...named, pid, processStartTicks };
        await this.put(record);
      },
    });
    return this.#manage(record, running);
  }

  #manage(record: VmRecord, running: RunningVm): ManagedVm {
    const { id } = record;
    const vm = new ManagedVm(record, running, {
      allow: async (shapeMax) => {
        vm.record = { ...this.#require(id), shapeMax };
        await this.put(vm.record);
      },
      setLimits: async (ctx, size) => {
        const { cgroupParent } = this.#require(id);
        await this.#parts.cgroups.setLimits(ctx, cgroupParent, id, hypervisorLimits(size));
      },
    });
    this.#vms.set(record.id, vm);
    this.#parts.onChange?.();
    return vm;
  }

  async #unmakeBounded(record: VmRecord): Promise<void> {
    await underDeadline(background(), destroyTimeoutMs, 'removing a VM', (ctx) => this.unmake(ctx, record));
  }

  #require(id: string): VmRecord {
    const record = this.#records.get(id);
    if (record === undefined) throw new Error(`there is no VM ${id}`);
    return record;
  }

  async #readRecords(): Promise<void> {
    const { store, driver, logger } = this.#parts;
    for (const record of await store.loadAll()) {
      if (!isId(record.id) || record.driver !== driver.name) {
        logger.warn('a VM record is of another driver; it is left alone', { id: record.id });
        continue;
      }
      this.#records.set(record.id, record);
      this.#inherited.add(record.id);
      this.#uids.reserve(record.uid);
      if (record.template === undefined) continue;
      // Until its template says that it is still there.
      this.#uids.reserve(record.template.gid);
      this.#retiredGids.add(record.template.gid);
    }
  }

  /** A VM of which only the id is known: enough to take it down. */
  #orphan(id: string): VmRecord {
    const { driver, settings } = this.#parts;
    return {
      schemaVersion: 1,
      id,
      sandboxId: '',
      domain: defaultDomain,
      driver: driver.name,
      shape: { vcpus: 1, memoryMib: 0 },
      accelerator: 'tcg',
      source: 'cold',
      uid: -1,
      netns: netnsName(settings.instance, id),
      tap: '',
      cgroupParent: '',
      pid: 0,
      processStartTicks: '0',
    };
  }
}

/** Nobody waits for what goes into the pool: the processors are for those that somebody waits for. */
function firstLimits({ shape, source, sandboxId }: VmRecord): CgroupLimits {
  const limits = hypervisorLimits(shape);
  return source === 'pool' && sandboxId === '' ? { ...limits, cpuShares: cpuSharesMin } : limits;
}

/** The same machine, to be started from nothing. */
function bootedInstead({ template: _, ...rest }: VmRecord): VmRecord {
  return { ...rest, source: 'cold', pid: 0, processStartTicks: '0' };
}

/** The namespace's name is made of the VM's id: an orphan of either can be matched with the other. */
export function netnsName(instance: string, id: string): string {
  return `${instance}-${id}`;
}
