/**
 * What the VM room needs of the outside world. A VM's life, in the words of this room:
 *
 *   acquire  record → netns and tap → cgroup → process → adopted by its supervisor
 *   adopt    after a restart: process found by pid and start time, QMP reconnected, devices read back
 *   destroy  process killed → cgroup → netns → run directory → record
 */
import type { Context } from '../base/context.js';
import type { Accelerator, VmRecord } from '../model/vm.js';
import type { RecordStore, VmControls } from '../pod/ports.js';

export type VmStore = RecordStore<VmRecord>;

/** A hypervisor. Conformance: test/suites/vm-driver.ts, run on the fake and on every real one. */
export interface VmDriver {
  readonly name: string;
  /** Which accelerator VMs will use, and why; proven by booting, remembered per host boot and kernel. */
  probe(ctx: Context): Promise<AcceleratorVerdict>;
  /**
   * Starts the process in its jail: own uid, netns, cgroup, seccomp. Resolves when QMP answers; the
   * guest may still boot. On failure nothing is left behind.
   */
  start(ctx: Context, spec: VmSpec): Promise<RunningVm>;
  /** Takes a running process over after a restart; undefined when it is gone. */
  adopt(ctx: Context, record: VmRecord): Promise<RunningVm | undefined>;
  /** Kills the process if it lives and removes its run directory. */
  destroyGone(ctx: Context, record: VmRecord): Promise<void>;
  /** Ids of all processes and run directories of this instance, known or not. */
  list(ctx: Context): Promise<string[]>;
}

export interface AcceleratorVerdict {
  readonly accelerator: Accelerator;
  /** For people: why this one, and what to do when it is not the wanted one. */
  readonly why: string;
}

export interface VmSpec {
  readonly record: VmRecord;
  /** Directories under each cgroup controller that the process is put in. */
  readonly cgroup: ProcessCgroup;
}

/** A running hypervisor process. */
export interface RunningVm extends VmControls {
  readonly pid: number;
  readonly processStartTicks: string;
  /** Lets go of the process without touching it: the daemon shuts down, the VM goes on. */
  release(): Promise<void>;
}

/** Network namespaces with a tap for QEMU; implemented by `drivers/cni`. */
export interface NetnsFactory {
  /** Creates the namespace `name` with a persistent tap that belongs to `uid`. */
  create(ctx: Context, name: string, uid: number): Promise<{ readonly path: string; readonly tap: string }>;
  deleteGone(ctx: Context, name: string): Promise<void>;
  /** Names of all namespaces of this instance. */
  list(ctx: Context): Promise<string[]>;
}

/** Host cgroups, v1, v2 or hybrid; implemented by `drivers/cgroup`. */
export interface CgroupFactory {
  /** Creates `<parent>/herkos-<id>` in every controller; parent in cgroupfs or systemd form. */
  create(ctx: Context, parent: string, id: string, limits: CgroupLimits): Promise<ProcessCgroup>;
  /** Kills what is left inside, then removes it. */
  deleteGone(ctx: Context, parent: string, id: string): Promise<void>;
}

export interface CgroupLimits {
  readonly memoryBytesMax?: number;
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
  readonly cpuShares?: number;
  readonly pidsMax?: number;
}

export interface ProcessCgroup {
  /** Absolute paths of the `cgroup.procs` files to write the pid to. */
  readonly procsFiles: readonly string[];
}
