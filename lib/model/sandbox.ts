/**
 * A pod sandbox: one virtual machine and its network.
 *
 *     creating ──► ready ──► stopping ──► notready ──► removing ──► (gone)
 *        │           │                       ▲
 *        │           └── the VM died ────────┘
 *        └── failed: undone, never listed
 *
 * CRI sees `ready` as SANDBOX_READY and everything after it as SANDBOX_NOTREADY. A sandbox that is
 * still `creating` is not listed: the kubelet does not know its id yet.
 */
import type { NetworkAttachment } from './network.js';
import type { LinuxResources } from './resources.js';
import type { UnixNano } from './time.js';

export interface SandboxMetadata {
  readonly name: string;
  readonly uid: string;
  readonly namespace: string;
  readonly attempt: number;
}

export type NamespaceMode = 'POD' | 'CONTAINER' | 'NODE' | 'TARGET';

/** Echoed in status: the kubelet compares it with the pod it wants. */
export interface NamespaceOptions {
  readonly network: NamespaceMode;
  readonly pid: NamespaceMode;
  readonly ipc: NamespaceMode;
  readonly targetId: string;
}

export interface DnsConfig {
  readonly servers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export interface PortMapping {
  readonly protocol: Protocol;
  readonly containerPort: number;
  /** 0 when the port is not published on the node. */
  readonly hostPort: number;
  readonly hostIp: string;
}

/** What the kubelet asked for: the checked domain form of PodSandboxConfig. */
export interface SandboxConfig {
  readonly metadata: SandboxMetadata;
  readonly hostname: string;
  /** Absolute, or empty when the pod writes no logs. */
  readonly logDirectory: string;
  /** Undefined: the node's own resolv.conf is used. */
  readonly dns?: DnsConfig;
  readonly portMappings: readonly PortMapping[];
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** As the kubelet wrote it: `/kubepods/…` (cgroupfs) or `….slice` (systemd); empty for the default. */
  readonly cgroupParent: string;
  readonly sysctls: Readonly<Record<string, string>>;
  readonly namespaceOptions: NamespaceOptions;
  readonly privileged: boolean;
  /** Sum of the container limits, when the kubelet sends it. */
  readonly resources?: LinuxResources;
  /** The RuntimeClass overhead, when the kubelet sends it. */
  readonly overhead?: LinuxResources;
}

export type SandboxPhase = 'creating' | 'ready' | 'stopping' | 'notready' | 'removing';

/** How long a step took; shown by `herkosctl run` and `herkosctl inspect`. */
export interface PhaseTiming {
  readonly phase: string;
  readonly ms: number;
}

/** One sandbox as it is kept on disk. */
export interface SandboxRecord {
  readonly schemaVersion: 1;
  readonly id: string;
  readonly config: SandboxConfig;
  readonly runtimeHandler: string;
  readonly createdAt: UnixNano;
  readonly phase: SandboxPhase;
  /** Set as soon as the network may hold an address for this pod, so that a sweep can give it back. */
  readonly networkRequested: boolean;
  /** Where the network was attached, known once it was requested; CNI DEL wants to hear it again. */
  readonly netnsPath?: string;
  readonly tap?: string;
  readonly network?: NetworkAttachment;
  /** Why the sandbox is not ready, when it did not stop on request. */
  readonly failure?: string;
  readonly timings: readonly PhaseTiming[];
}

/** What the guest has in /etc/machine-id: as random as the sandbox's id, of which it is the beginning. */
export function machineIdOf(record: Pick<SandboxRecord, 'id'>): string {
  return record.id.slice(0, 32);
}

/** `name_namespace_uid_attempt`: reserved while the sandbox exists. */
export function sandboxName(metadata: SandboxMetadata): string {
  return [metadata.name, metadata.namespace, metadata.uid, String(metadata.attempt)].join('_');
}
