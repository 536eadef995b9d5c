/** What surrounds the VM room, in memory: namespaces, cgroups, records. Templates are real files. */
import type { HerkosError } from '../../lib/base/errors.js';
import type { Exec } from '../../lib/base/exec.js';
import { systemExec } from '../../lib/base/exec.js';
import { silentLogger } from '../../lib/base/logger.js';
import type { VmRecord } from '../../lib/model/vm.js';
import { VmManager } from '../../lib/vm/manager.js';
import type { CgroupFactory, CgroupLimits, NetnsFactory, Rehearsal, VmStore } from '../../lib/vm/ports.js';
import type { VmSettings } from '../../lib/vm/settings.js';
import { TemplateFiles } from '../../lib/vm/template/template-files.js';
import { vmSettingsFor } from '../tools/vm-room.js';
import { FakeObserver } from './observer.js';
import { FakeTemplateMemories } from './template-memories.js';
import { FakeHost, FakeVmDriver } from './vm-driver.js';

/** No file system is mounted: a directory will do. */
const execWithoutMounts: Exec = {
  run: (ctx, program, args, options) =>
    program === 'mount'
      ? Promise.resolve({ exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) })
      : systemExec.run(ctx, program, args, options),
};

export class FakeVmNode {
  readonly host = new FakeHost();
  readonly records = new Map<string, VmRecord>();
  readonly namespaces = new Map<string, number>();
  readonly cgroups = new Set<string>();
  /** By id; what was not set stays. */
  readonly limits = new Map<string, CgroupLimits>();
  /** The next namespace cannot be made. */
  failNetns: HerkosError | undefined;
  readonly driver = new FakeVmDriver({ host: this.host });
  readonly observer = new FakeObserver();
  availableBytes = Number.MAX_SAFE_INTEGER;
  /** Of each VM. */
  bytesUsed = 1;
  /** Done to each guest that becomes a template or waits in the pool. */
  rehearse: Rehearsal['rehearse'] = () => Promise.resolve();
  rehearsals = 0;
  readonly settings: VmSettings;
  #files: TemplateFiles | undefined;

  constructor(directory: string, more: { templates?: boolean; pool?: number } = {}) {
    const base = vmSettingsFor(
      directory,
      { instance: 'test', uidFirst: process.getuid?.() ?? 0, uidCount: 200 },
      { templates: true, memoryMib: 2, ...more },
    );
    this.settings = { ...base, uidFirst: 5000 };
  }

  /** Of the manager that was made last. */
  files(): TemplateFiles {
    if (this.#files === undefined) throw new Error('there is no manager yet');
    return this.#files;
  }

  /** As a daemon that has just started has it. */
  manager(settings: VmSettings = this.settings): VmManager {
    this.#files = new TemplateFiles({
      ...settings.templates,
      exec: execWithoutMounts,
      memories: new FakeTemplateMemories(settings.templates.directory),
    });
    return new VmManager({
      settings,
      driver: this.driver,
      netns: this.#netns(),
      cgroups: this.#cgroups(),
      store: this.#store(),
      files: this.#files,
      rehearsal: {
        rehearse: async (ctx, path) => {
          this.rehearsals += 1;
          await this.rehearse(ctx, path);
        },
      },
      availableBytes: () => Promise.resolve(this.availableBytes),
      bytesUsed: () => Promise.resolve(this.bytesUsed),
      logger: silentLogger,
      observer: this.observer,
    });
  }

  /** Processes that run, by source. */
  sources(): string[] {
    return [...this.records.values()].map(({ source }) => source).sort();
  }

  /** Everything that could leak. */
  left(): string[] {
    return [
      ...this.records.keys(),
      ...this.namespaces.keys(),
      ...this.cgroups,
      ...this.host.processes.keys(),
    ];
  }

  #store(): VmStore {
    return {
      loadAll: () => Promise.resolve([...this.records.values()]),
      put: (record) => {
        this.records.set(record.id, record);
        return Promise.resolve();
      },
      delete: (id) => {
        this.records.delete(id);
        return Promise.resolve();
      },
    };
  }

  #netns(): NetnsFactory {
    return {
      create: (_, name, uid) => {
        const error = this.failNetns;
        this.failNetns = undefined;
        if (error !== undefined) return Promise.reject(error);
        this.namespaces.set(name, uid);
        return Promise.resolve({ path: `/run/netns/${name}`, tap: 'tap0' });
      },
      deleteGone: (_, name) => {
        this.namespaces.delete(name);
        return Promise.resolve();
      },
      list: () => Promise.resolve([...this.namespaces.keys()]),
    };
  }

  #cgroups(): CgroupFactory {
    return {
      create: (_, parent, id, limits) => {
        this.cgroups.add(`${parent}/${id}`);
        this.limits.set(id, limits);
        return Promise.resolve({ procsFiles: [`${parent}/${id}/cgroup.procs`] });
      },
      setLimits: (_, _parent, id, limits) => {
        this.limits.set(id, { ...this.limits.get(id), ...limits });
        return Promise.resolve();
      },
      enter: () => Promise.resolve(),
      deleteGone: (_, parent, id) => {
        this.cgroups.delete(`${parent}/${id}`);
        return Promise.resolve();
      },
    };
  }
}
