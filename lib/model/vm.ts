/**
 * A virtual machine as the node sees it.
 *
 *     starting ──► running ──► stopping ──► dead ──► (swept)
 *         └─────────┴── the process ended ──►┘
 */

export type Accelerator = 'kvm' | 'tcg';

/** How a pod came by its VM. */
export type VmSource = 'cold' | 'clone' | 'pool';

/** Where tenants are not told apart: all pods of the node may share templates. */
export const defaultDomain = 'default';

export interface VmShape {
  readonly vcpus: number;
  readonly memoryMib: number;
}

/** Where a plugged device appears inside the guest; the guest may not choose it. */
export type DeviceLocator =
  /** `<slot>.<function>` of the root port on bus 0 and the function behind it: stable whatever the guest numbers. */
  | { readonly kind: 'pci'; readonly rootPort: string; readonly function: number }
  /** ACPI NFIT device handle of an NVDIMM. */
  | { readonly kind: 'nfit'; readonly handle: number };

/** One VM as it is kept on disk; enough to find and adopt the process after a restart. */
export interface VmRecord {
  readonly schemaVersion: 1;
  /** Its own: 64 hex digits, as a sandbox's. A VM that was made for its pod has the sandbox's id. */
  readonly id: string;
  /** The sandbox it belongs to; empty while it waits in the pool. */
  readonly sandboxId: string;
  /** It shares memory only with VMs of the same domain (S4). */
  readonly domain: string;
  /** The kernel may merge its pages with equal ones of other such processes; absent: it may not. */
  readonly mergeable?: boolean;
  readonly driver: string;
  /** What it booted with. */
  readonly shape: VmShape;
  /** The most that it was ever to have, by each measure; its process's limits never allow for more. Absent: `shape`. */
  readonly shapeMax?: VmShape;
  readonly accelerator: Accelerator;
  readonly source: VmSource;
  /** The template that it was cloned from. */
  readonly template?: { readonly id: string; readonly gid: number };
  /** Unprivileged user and group of the process (S2). */
  readonly uid: number;
  readonly netns: string;
  readonly tap: string;
  readonly cgroupParent: string;
  /** 0 until the process runs. */
  readonly pid: number;
  /** Start time of the process in clock ticks since boot (/proc/PID/stat field 22): pids are reused, this is not. */
  readonly processStartTicks: string;
}

/** The end of a VM process. */
export interface VmExit {
  /** Undefined when the process was not our child and only its end was seen. */
  readonly exitCode?: number;
  readonly signal?: string;
  /** The last lines of its standard error, for the log. */
  readonly lastWords: string;
}
