/** What is looked at when somebody asks for the metrics: from memory, or by reading a few small files. */
import type { ContainerPhase } from '../model/container.js';
import type { SandboxPhase } from '../model/sandbox.js';
import type { VmSource } from '../model/vm.js';

export interface NodeView {
  /** Whether pods can be run. */
  isReady(): Promise<boolean>;
  sandboxes(): readonly { readonly phase: SandboxPhase }[];
  containers(): readonly { readonly phase: ContainerPhase }[];
  vms(): readonly VmView[];
  pool(): readonly PoolView[];
  templates(): Promise<readonly TemplateView[]>;
  /** Undefined while no domain has opted in. */
  ksm(): Promise<KsmView | undefined>;
}

export interface VmView {
  readonly domain: string;
  readonly role: 'pod' | 'pool' | 'template';
  readonly source: VmSource;
  /** `lost`: there is a record, but no process that the daemon holds. */
  readonly state: 'starting' | 'running' | 'lost';
}

/** Of one kind of VM; a domain may have several. */
export interface PoolView {
  readonly domain: string;
  readonly ready: number;
  readonly target: number;
}

export interface TemplateView {
  readonly domain: string;
  /** VMs that were made of it since the daemon started. */
  readonly uses: number;
  /** Unix time. */
  readonly builtAtMs: number;
  /** What its memory file really takes. */
  readonly memoryBytesUsed: number;
}

export const ksmStates = ['unavailable', 'foreign', 'off', 'fast', 'slow', 'resting'] as const;

/** Counts are of the whole host: the kernel knows no domains. */
export interface KsmView {
  readonly domain: string;
  readonly state: (typeof ksmStates)[number];
  readonly vms: number;
  readonly pagesShared: number;
  readonly pagesSharing: number;
  readonly pagesVolatile: number;
  readonly fullScans: number;
  readonly pagesScanned?: number;
  /** Memory that was given back, less what the bookkeeping takes. */
  readonly generalProfitBytes?: number;
  readonly cpuMs?: number;
}
