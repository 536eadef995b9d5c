import type { Context } from '../base/context.js';
import { background, underDeadline } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import { isId, shortId } from '../base/ids.js';
import { KeyedLock } from '../base/keyed-lock.js';
import type { Logger } from '../base/logger.js';
import { Rollback } from '../base/rollback.js';
import type { VmRecord } from '../model/vm.js';
import { defaultDomain } from '../model/vm.js';
import type { PodVm, VmProvider, VmRequest } from '../pod/ports.js';
import { ManagedVm } from './managed-vm.js';
import type { CgroupFactory, NetnsFactory, RunningVm, VmDriver, VmStore } from './ports.js';
import type { VmSettings } from './settings.js';
import { checkShape, hypervisorLimits } from './sizing.js';
import { UidPool } from './uid-pool.js';

export interface VmManagerOptions {
  readonly settings: VmSettings;
  readonly driver: VmDriver;
  readonly netns: NetnsFactory;
  readonly cgroups: CgroupFactory;
  readonly store: VmStore;
  readonly logger: Logger;
}

/** Undoing and sweeping must end, whatever hangs. */
const destroyTimeoutMs = 30_000;

/**
 * The VMs of this node. A record is on disk before anything of a VM exists, so that a daemon killed
 * at any moment finds what it has to take over or take down.
 */
export class VmManager implements VmProvider {
  readonly #options: VmManagerOptions;
  readonly #uids: UidPool;
  /** One call at a time for each sandbox. */
  readonly #lock = new KeyedLock();
  readonly #records = new Map<string, VmRecord>();
  readonly #vms = new Map<string, ManagedVm>();
  #loaded: Promise<void> | undefined;

  constructor(options: VmManagerOptions) {
    this.#options = options;
    this.#uids = new UidPool(options.settings.uidFirst, options.settings.uidCount);
  }

  async acquire(ctx: Context, request: VmRequest): Promise<PodVm> {
    const { sandboxId, shape } = request;
    checkShape(this.#options.settings.sizing, shape);
    await this.#load();
    const verdict = await this.#options.driver.probe(ctx);
    return this.#lock.run(ctx, sandboxId, async () => {
      if (this.#records.has(sandboxId))
        throw new HerkosError('AlreadyExists', `sandbox ${sandboxId} has a VM already`);
      const record: VmRecord = {
        schemaVersion: 1,
        id: sandboxId,
        sandboxId,
        domain: request.domain,
        driver: this.#options.driver.name,
        shape,
        accelerator: verdict.accelerator,
        source: 'cold',
        uid: this.#uids.take(),
        netns: netnsName(this.#options.settings.instance, sandboxId),
        tap: '',
        cgroupParent: request.cgroupParent,
        pid: 0,
        processStartTicks: '0',
      };
      const undo = new Rollback();
      // One undo for all: it takes down whatever of the VM there is.
      undo.push('remove what there is of the VM', () => this.#destroyBounded(record));
      try {
        return await this.#build(ctx, record);
      } catch (error) {
        throw await undo.undo(error);
      }
    });
  }

  async adopt(ctx: Context, sandboxId: string): Promise<PodVm | undefined> {
    await this.#load();
    return this.#lock.run(ctx, sandboxId, async () => {
      const known = this.#vms.get(sandboxId);
      if (known !== undefined) return known;
      const record = this.#records.get(sandboxId);
      // Without a tap the daemon died before it could start a process.
      if (record === undefined || record.tap === '') return undefined;
      const running = await this.#options.driver.adopt(ctx, record);
      if (running === undefined) return undefined;
      const { pid, processStartTicks } = running;
      if (record.pid === pid) return this.#manage(record, running);
      const found = { ...record, pid, processStartTicks };
      await this.#put(found);
      return this.#manage(found, running);
    });
  }

  async destroyGone(ctx: Context, sandboxId: string): Promise<void> {
    await this.#load();
    await this.#lock.run(ctx, sandboxId, async () => {
      const record = this.#records.get(sandboxId);
      if (record !== undefined) await this.#destroy(ctx, record);
    });
  }

  async sweep(ctx: Context, knownSandboxIds: ReadonlySet<string>): Promise<string[]> {
    await this.#load();
    const found: string[] = [];
    const tryEach = async (what: string, body: () => Promise<void>): Promise<void> => {
      found.push(what);
      try {
        await body();
      } catch (error) {
        // The rest must be swept all the same, and this again at the next start.
        this.#options.logger.error('cannot sweep', { what, error: messageOf(error) });
      }
    };
    for (const id of this.#records.keys())
      if (!knownSandboxIds.has(id)) await tryEach(`vm ${shortId(id)}`, () => this.destroyGone(ctx, id));
    for (const id of await this.#options.driver.list(ctx)) {
      if (this.#records.has(id)) continue;
      const orphan = this.#orphan(id);
      await tryEach(`process or run directory ${shortId(id)}`, () => this.#destroy(ctx, orphan));
    }
    const names = new Set([...this.#records.values()].map(({ netns }) => netns));
    for (const name of await this.#options.netns.list(ctx))
      if (!names.has(name))
        await tryEach(`network namespace ${name}`, () => this.#options.netns.deleteGone(ctx, name));
    return found;
  }

  /** The daemon shuts down: VMs go on. */
  async release(): Promise<void> {
    await Promise.all([...this.#vms.values()].map((vm) => vm.release()));
    this.#vms.clear();
  }

  async #build(ctx: Context, first: VmRecord): Promise<PodVm> {
    const { netns, cgroups, driver } = this.#options;
    await this.#put(first);
    // Independent of each other, and both cost a few programs or file operations.
    const [network, cgroup] = await allOrError([
      netns.create(ctx, first.netns, first.uid),
      cgroups.create(ctx, first.cgroupParent, first.id, hypervisorLimits(first.shape)),
    ]);
    const named = { ...first, tap: network.tap };
    await this.#put(named);
    const running = await driver.start(ctx, { record: named, cgroup });
    const record = { ...named, pid: running.pid, processStartTicks: running.processStartTicks };
    try {
      await this.#put(record);
    } catch (error) {
      await running.kill(background());
      throw error;
    }
    return this.#manage(record, running);
  }

  #manage(record: VmRecord, running: RunningVm): ManagedVm {
    const vm = new ManagedVm(record, running);
    this.#vms.set(record.id, vm);
    return vm;
  }

  async #destroyBounded(record: VmRecord): Promise<void> {
    await underDeadline(background(), destroyTimeoutMs, 'removing a VM', (ctx) => this.#destroy(ctx, record));
  }

  /** In the order in which one thing keeps the next one busy: process, cgroup, namespace, record. */
  async #destroy(ctx: Context, record: VmRecord): Promise<void> {
    const { driver, netns, cgroups, store } = this.#options;
    // What is known now may be newer than what the caller holds.
    const latest = this.#records.get(record.id) ?? record;
    const vm = this.#vms.get(record.id);
    await vm?.kill(ctx);
    await driver.destroyGone(ctx, latest);
    this.#vms.delete(record.id);
    await cgroups.deleteGone(ctx, latest.cgroupParent, latest.id);
    await netns.deleteGone(ctx, latest.netns);
    await store.delete(latest.id);
    this.#records.delete(latest.id);
    this.#uids.give(latest.uid);
  }

  async #put(record: VmRecord): Promise<void> {
    this.#records.set(record.id, record);
    await this.#options.store.put(record);
  }

  /** All records, once. */
  async #load(): Promise<void> {
    await (this.#loaded ??= this.#readRecords().catch((error: unknown) => {
      this.#loaded = undefined;
      throw error;
    }));
  }

  async #readRecords(): Promise<void> {
    for (const record of await this.#options.store.loadAll()) {
      if (!isId(record.id) || record.driver !== this.#options.driver.name) {
        this.#options.logger.warn('a VM record is of another driver; it is left alone', { id: record.id });
        continue;
      }
      this.#records.set(record.id, record);
      this.#uids.reserve(record.uid);
    }
  }

  /** A VM of which only the id is known: enough to take it down. */
  #orphan(id: string): VmRecord {
    return {
      schemaVersion: 1,
      id,
      sandboxId: '',
      domain: defaultDomain,
      driver: this.#options.driver.name,
      shape: { vcpus: 1, memoryMib: 0 },
      accelerator: 'tcg',
      source: 'cold',
      uid: -1,
      netns: netnsName(this.#options.settings.instance, id),
      tap: '',
      cgroupParent: '',
      pid: 0,
      processStartTicks: '0',
    };
  }
}

/** The namespace's name is made of the VM's id: an orphan of either can be matched with the other. */
export function netnsName(instance: string, id: string): string {
  return `${instance}-${id}`;
}

/** Like Promise.all, but waits for all before it throws: what is still being made cannot be undone. */
async function allOrError<A, B>([first, second]: [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled([first, second]);
  return Promise.all([first, second]);
}
