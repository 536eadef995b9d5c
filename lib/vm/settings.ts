/** What the VM room must be told; `lib/config` and main fill it. */
export interface VmSettings {
  /** Letters and digits; begins the name of everything the room makes on the node. */
  readonly instance: string;
  /** VMs run as uids `uidFirst … uidFirst + uidCount - 1`, no two living ones as the same. */
  readonly uidFirst: number;
  readonly uidCount: number;
  readonly sizing: SizingSettings;
  /** Cgroup of VMs that belong to no pod yet; empty: the default one. */
  readonly poolCgroupParent: string;
  /** VMs of these may have equal pages merged by the kernel; one domain at most (S4). */
  readonly mergeableDomains?: readonly string[];
  readonly templates: TemplateSettings;
  readonly pool: PoolSettings;
}

export interface TemplateSettings {
  readonly enabled: boolean;
  /** A file system in memory is mounted here. */
  readonly directory: string;
  /** Of all templates together. */
  readonly bytesMax: number;
  /** A template that is older, or was used more often, is built anew. */
  readonly ageMsMax: number;
  readonly usesMax: number;
  readonly buildTimeoutMs: number;
  /** A pod boots cold rather than wait longer for one that is being made, counted from its beginning. */
  readonly waitMsMax: number;
  /** One that no pod has asked for so long makes room for another domain's. */
  readonly idleMsMin: number;
}

export interface PoolSettings {
  /** VMs kept ready for each kind that pods ask for; 0: none. */
  readonly size: number;
  /** VMs kept ready altogether. */
  readonly sizeMax: number;
  /** What all that is kept ready may use of the node's memory together. */
  readonly memoryBytesMax: number;
  /** With less memory than this available on the node, nothing is kept ready. */
  readonly memoryReserveBytes: number;
  /** A kind that no pod has asked for so long is not kept ready any more. */
  readonly idleMsMax: number;
}

export interface SizingSettings {
  /** A pod's machine when it has no limits. */
  readonly vcpusDefault: number;
  readonly memoryMibDefault: number;
  /** Added to the pod's own memory for the guest's kernel, agent and page tables. */
  readonly guestOverheadMib: number;
  /** What this node can give one VM at most. */
  readonly vcpusMax: number;
  readonly memoryMibMax: number;
}

/** Below this the guest's kernel has no room to start a container. */
export const memoryMibFloor = 128;
/** A guest takes and gives back memory in blocks of this size; odd sizes only waste the rest. */
export const memoryStepMib = 4;
/**
 * Of a RuntimeClass's overhead, what the hypervisor process keeps for itself: one without KVM was measured to use
 * so much beside its guest, of which its translation buffer is 32 MiB; the rest is heap and page tables. The
 * kubelet's limit on the pod's cgroup counts it too.
 */
export const hypervisorShareMib = 64;
/**
 * What the hypervisor process may use beyond the guest's memory: its own code and heap, the
 * translation cache. Its cgroup kills it above, so it is generous.
 */
export const hypervisorOverheadMib = 256;
/** For as much of the guest's memory it may use one MiB more: page tables grow with it, its own and the guest's. */
export const guestMibPerTableMib = 128;
/** Threads of one hypervisor: vCPUs, I/O workers (64 at most in QEMU), its main loop. */
export const hypervisorThreadsMax = 256;
