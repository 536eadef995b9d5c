/**
 * A container in a pod VM.
 *
 *     creating ──► created ──► starting ──► running ──► exited ──► removing ──► (gone)
 *                     │            │                       ▲
 *                     └────────────┴── stopped, failed ────┘
 *
 * CRI sees `creating` not at all, `created` and `starting` as CREATED, `exited` and `removing` as EXITED.
 */
import type { LinuxResources } from './resources.js';
import type { NamespaceOptions } from './sandbox.js';
import type { UnixNano } from './time.js';

export interface ContainerMetadata {
  readonly name: string;
  readonly attempt: number;
}

export type MountPropagation = 'PRIVATE' | 'HOST_TO_CONTAINER' | 'BIDIRECTIONAL';

export interface IdMapping {
  readonly hostId: number;
  readonly containerId: number;
  readonly length: number;
}

/** Echoed in status exactly as requested. */
export interface ContainerMount {
  readonly containerPath: string;
  readonly hostPath: string;
  readonly readonly: boolean;
  readonly selinuxRelabel: boolean;
  readonly propagation: MountPropagation;
  readonly recursiveReadOnly: boolean;
  /** Reference of an image volume, with the path inside it; empty for other mounts. */
  readonly image: string;
  readonly imageSubPath: string;
}

export type SeccompProfile =
  | { readonly type: 'Unconfined' }
  | { readonly type: 'RuntimeDefault' }
  | { readonly type: 'Localhost'; readonly path: string };

export interface ContainerSecurity {
  readonly privileged: boolean;
  readonly namespaceOptions: NamespaceOptions;
  readonly runAsUser?: number;
  readonly runAsUsername?: string;
  readonly runAsGroup?: number;
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: 'Merge' | 'Strict';
  readonly readonlyRootfs: boolean;
  readonly noNewPrivs: boolean;
  readonly addCapabilities: readonly string[];
  readonly dropCapabilities: readonly string[];
  readonly addAmbientCapabilities: readonly string[];
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly seccomp: SeccompProfile;
}

/** What the kubelet asked for: the checked domain form of ContainerConfig. */
export interface ContainerConfig {
  readonly metadata: ContainerMetadata;
  /** What the client named: an id, a tag or a digest. */
  readonly image: string;
  readonly userSpecifiedImage: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly workingDir: string;
  /** In order; a later one of the same name wins. Values may be any bytes, so they are base64 of them. */
  readonly envs: readonly { readonly key: string; readonly valueBase64: string }[];
  readonly mounts: readonly ContainerMount[];
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Relative to the sandbox's log directory; empty discards the output. */
  readonly logPath: string;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly tty: boolean;
  readonly resources: LinuxResources;
  readonly security: ContainerSecurity;
  /** `SIGTERM` and the like; empty: the image's, else SIGTERM. */
  readonly stopSignal: string;
}

export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  readonly supplementalGroups: readonly number[];
}

export type ContainerPhase = 'creating' | 'created' | 'starting' | 'running' | 'exited' | 'removing';

export interface ContainerExit {
  /** 128 + n for a process that signal n ended. */
  readonly code: number;
  /** `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`, `Unknown` (cri-behaviour §1.5). */
  readonly reason: string;
  readonly message: string;
}

/** One container as it is kept on disk. */
export interface ContainerRecord {
  readonly schemaVersion: 1;
  readonly id: string;
  readonly sandboxId: string;
  readonly config: ContainerConfig;
  /** The image's id, `sha256:<64 hex>` of its config. */
  readonly imageId: string;
  /** A repo digest, or the id where there is none. */
  readonly imageRef: string;
  readonly user: ContainerUser;
  /** The number that StopContainer sends first. */
  readonly stopSignal: number;
  /** Absolute, or empty. */
  readonly logPath: string;
  /** OCI process object as JSON: what an exec in this container starts from (the image may be gone by then). */
  readonly ociProcess?: string;
  readonly createdAt: UnixNano;
  readonly startedAt: UnixNano;
  readonly finishedAt: UnixNano;
  readonly phase: ContainerPhase;
  readonly exit?: ContainerExit;
  /**
   * Limits that are being brought to the guest: from now on they may be in force there, until this is gone
   * again. `config.resources` says what holds otherwise.
   */
  readonly changingTo?: LinuxResources;
}

/** `name_podname_namespace_uid_attempt`: reserved while the container exists. */
export function containerName(
  container: ContainerMetadata,
  sandbox: { readonly name: string; readonly namespace: string; readonly uid: string },
): string {
  return [container.name, sandbox.name, sandbox.namespace, sandbox.uid, String(container.attempt)].join('_');
}
