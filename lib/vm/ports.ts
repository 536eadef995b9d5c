/**
 * What the VM room needs of the outside world. A VM's life, in the words of this room:
 *
 *   acquire  record → netns and tap → cgroup → process → adopted by its supervisor
 *   adopt    after a restart: process found by pid and start time, QMP reconnected, devices read back
 *   destroy  process killed → cgroup → netns → run directory → record
 */
import type { Context } from '../base/context.js';
import type { Accelerator, VmRecord, VmShape } from '../model/vm.js';
import type { RecordStore, VmControls } from '../pod/ports.js';

export type VmStore = RecordStore<VmRecord>;

/** A hypervisor. Conformance: test/suites/vm-driver.ts, run on the fake and on every real one. */
export interface VmDriver {
  readonly name: string;
  /** Which accelerator VMs will use, and why; proven by booting, remembered per host boot and kernel. */
  probe(ctx: Context): Promise<AcceleratorVerdict>;
  /**
   * Starts the process in its jail: own uid, netns, cgroup, seccomp. Resolves when the guest is there, and
   * stands still: with `resume` it boots, a clone goes on where its template stopped. On failure nothing is
   * left behind.
   */
  start(ctx: Context, spec: VmSpec): Promise<RunningVm>;
  /**
   * Names everything of the machine that a template and its clones must have alike: guest image, machine
   * and its devices, hypervisor program, processor. Equal keys, and only they, may share a template.
   */
  machineKey(ctx: Context, shape: VmShape, accelerator: Accelerator, mergeable: boolean): Promise<string>;
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
  readonly memory: VmMemory;
  /** The process runs. What this does is waited for before `start` ends, however it ends; its failure is that of `start`. */
  readonly onProcess?: (process: Pick<RunningVm, 'pid' | 'processStartTicks'>) => Promise<void>;
}

/** What is in the guest's memory when it starts, and who else has it. */
export type VmMemory =
  /** Empty, its own. */
  | { readonly kind: 'own' }
  /** Empty; what the guest writes is kept in the image's memory file. */
  | { readonly kind: 'template'; readonly image: TemplateImage }
  /** The image's, copied page by page as the guest writes. */
  | { readonly kind: 'clone'; readonly image: TemplateImage };

/** A guest that was stopped: its memory, and the state of its devices at the same moment. */
export interface TemplateImage {
  /** Of the guest's whole memory size; exists before the template boots. */
  readonly memory: MemoryFile;
  readonly statePath: string;
  /** A directory that the template's process may reach, for a socket. */
  readonly directory: string;
  /** Processes of this group, and no others, may open the memory. */
  readonly gid: number;
}

export interface MemoryFile {
  /** Root may open it. */
  readonly path: string;
  /** What is found there must be this. */
  readonly inode: number;
}

/**
 * Memory of templates. Conformance: test/suites/template-memories.ts.
 * What `make` gave goes when the daemon ends, until it is sealed; after that it stays until it is removed.
 */
export interface TemplateMemories {
  /** `id`: 16 hex digits. Empty memory that processes of group `gid` may open and fill. */
  make(ctx: Context, id: string, bytes: number, gid: number): Promise<UnsealedMemory>;
  /** Cheap: is it still this memory? @throws FailedPrecondition, reason TEMPLATE_CHANGED, when not */
  check(memory: HeldMemory): Promise<void>;
  /** Of all memories of this instance together, filled or not. */
  bytesHeld(): Promise<number>;
  /** Clones that run keep what they have. */
  removeGone(ctx: Context, id: string): Promise<void>;
  /** Ids of all memories of this instance, known or not. */
  list(): Promise<string[]>;
}

export interface UnsealedMemory {
  readonly memory: HeldMemory;
  /** The template's process has ended: from now on nobody can change a byte. */
  seal(ctx: Context): Promise<void>;
}

/** Where a memory is, in a form that a later daemon can check. */
export interface HeldMemory extends MemoryFile {
  readonly bytes: number;
  readonly pid: number;
  readonly startTicks: string;
}

/** A running hypervisor process. */
export interface RunningVm extends VmControls {
  readonly pid: number;
  readonly processStartTicks: string;
  /** The address of a NIC that the machine began with and that the next `plugNic` uses. */
  readonly spareNic: string | undefined;
  /** Stops the guest's processors; the guest does not notice. */
  pause(ctx: Context): Promise<void>;
  /** Ends the guest for good and completes the image that its memory belongs to. The process stays, to be killed. */
  saveTemplate(ctx: Context, image: TemplateImage): Promise<void>;
  /** Lets go of the process without touching it: the daemon shuts down, the VM goes on. */
  release(): Promise<void>;
  /** How the machine is now, for people; it changes nothing. */
  describe(ctx: Context): Promise<MachineReport>;
}

export interface MachineReport {
  /** What the guest has now. */
  readonly size: VmShape;
  /** What was plugged since it booted. */
  readonly devices: readonly PluggedDevice[];
}

export interface PluggedDevice {
  /** In the driver's own words, such as `nic` or `disk`. */
  readonly kind: string;
  readonly place: string;
  /** What is plugged: a layer's key, a disk's path, a NIC's address. */
  readonly keys: readonly string[];
  /** Who uses it; nobody any more while it is leaving. */
  readonly owners: readonly string[];
  readonly state: string;
}

/** Network namespaces with a tap for QEMU; implemented by `drivers/cni`. */
export interface NetnsFactory {
  /** Creates the namespace `name` with a persistent tap that belongs to `uid`. */
  create(ctx: Context, name: string, uid: number): Promise<{ readonly path: string; readonly tap: string }>;
  deleteGone(ctx: Context, name: string): Promise<void>;
  /** Names of all namespaces of this instance. */
  list(ctx: Context): Promise<string[]>;
}

/** The agent of a guest that becomes a template or waits in the pool. */
export interface Rehearsal {
  /**
   * Waits until the agent answers, lets it do once what every pod needs, so that clones find it done, and
   * leaves it waiting for its next connection. With `nicMac` it waits for that card too. Nothing of it is secret or tells one guest from another.
   */
  rehearse(ctx: Context, agentSocketPath: string, nicMac?: string): Promise<void>;
}

/** Host cgroups, v1, v2 or hybrid; implemented by `drivers/cgroup`. */
export interface CgroupFactory {
  /** Creates `<parent>/herkos-<id>` in every controller; parent in cgroupfs or systemd form. */
  create(ctx: Context, parent: string, id: string, limits: CgroupLimits): Promise<ProcessCgroup>;
  /** Changes the limits of what `create` has made; what `limits` does not name stays. */
  setLimits(ctx: Context, parent: string, id: string, limits: CgroupLimits): Promise<void>;
  /** Moves a running process, with all its threads, into the cgroup. */
  enter(ctx: Context, cgroup: ProcessCgroup, pid: number): Promise<void>;
  /** Kills what is left inside, then removes it. */
  deleteGone(ctx: Context, parent: string, id: string): Promise<void>;
}

export interface CgroupLimits {
  readonly memoryBytesMax?: number;
  readonly cpuQuotaUs?: number;
  readonly cpuPeriodUs?: number;
  /** `default`: what a new cgroup has. */
  readonly cpuShares?: number | 'default';
  readonly pidsMax?: number;
}

export interface ProcessCgroup {
  /** Absolute paths of the `cgroup.procs` files to write the pid to. */
  readonly procsFiles: readonly string[];
}

/** Hears what happens to templates, clones and the pool, to count it; it never throws. */
export interface VmObserver {
  /** Not for one that the end of the daemon cut short. */
  templateBuilt(domain: string, ms: number, hasSucceeded: boolean): void;
  /** Nobody clones it any more: it is not as it was, or a clone of it did not come up. */
  templateRefused(domain: string): void;
  /** A pod got a VM that boots instead of the clone that it was to have. */
  cloneReplaced(domain: string): void;
  /** A pod asked the pool for a VM; not while there is no pool. */
  poolAsked(domain: string, hasGiven: boolean): void;
  poolFilled(domain: string): void;
  poolFillFailed(): void;
  /** A VM that waited is given up, and not for a pod. */
  poolDropped(domain: string, why: PoolDrop): void;
}

/**
 * Memory is short; nobody has asked for its kind; its template is not the current one any more; it ended by
 * itself; the daemon shuts down.
 */
export type PoolDrop = 'memory' | 'idle' | 'stale' | 'ended' | 'shutdown';
