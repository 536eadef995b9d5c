/**
 * What the CRI handlers need of the rooms behind them; implemented by `lib/pod` and `lib/image`.
 * Handlers check requests, call one of these, and shape the answer; gRPC and protobuf end at `lib/cri`.
 */
import type { Context } from '../base/context.js';
import type { ErrorClass } from '../base/errors.js';
import type { ContainerConfig, ContainerRecord } from '../model/container.js';
import type { ImageRecord } from '../model/image.js';
import type { LinuxResources } from '../model/resources.js';
import type { SandboxConfig, SandboxRecord } from '../model/sandbox.js';
import type { Accelerator, VmRecord, VmShape } from '../model/vm.js';
import type { ImageName, RegistryCredentials } from '../image/ports.js';
import type { NetworkStatus } from '../pod/ports.js';

export interface Pods {
  runSandbox(ctx: Context, config: SandboxConfig, runtimeHandler: string): Promise<SandboxRecord>;
  /** Succeeds for an unknown id and when called again. */
  stopSandbox(ctx: Context, id: string): Promise<void>;
  /** Succeeds for an unknown id and when called again. */
  removeSandbox(ctx: Context, id: string): Promise<void>;
  /** By full id or unique prefix. @throws NotFound */
  sandbox(id: string): SandboxRecord;
  /** Every sandbox a client may know of (not `creating`), from memory. */
  sandboxes(): readonly SandboxRecord[];
  /** For verbose status: VM facts such as pid, accelerator, source, uid, device list, timings. JSON-ready, no secrets. */
  describeSandbox(id: string): Promise<Readonly<Record<string, unknown>>>;

  /** Keeps the pod's new sums of limits and sizes its VM. @throws NotFound, FailedPrecondition, ResourceExhausted */
  updateSandbox(
    ctx: Context,
    id: string,
    change: { readonly resources?: LinuxResources; readonly overhead?: LinuxResources },
  ): Promise<void>;

  createContainer(ctx: Context, sandboxId: string, config: ContainerConfig): Promise<ContainerRecord>;
  startContainer(ctx: Context, id: string): Promise<void>;
  stopContainer(ctx: Context, id: string, timeoutSeconds: number): Promise<void>;
  removeContainer(ctx: Context, id: string): Promise<void>;
  /** Limits that are not named stay. @throws NotFound, FailedPrecondition when it has ended, ResourceExhausted */
  updateContainer(ctx: Context, id: string, change: LinuxResources): Promise<void>;
  container(id: string): ContainerRecord;
  containers(): readonly ContainerRecord[];
  reopenLog(ctx: Context, id: string): Promise<void>;
  execSync(ctx: Context, id: string, command: readonly string[], timeoutSeconds: number): Promise<ExecOutput>;
  networkStatus(ctx: Context): Promise<NetworkStatus>;
}

export interface ExecOutput {
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

export interface Images {
  /** Resolves, fetches and converts; returns the stored image. Stops when ctx ends. */
  pull(
    ctx: Context,
    reference: string,
    credentials?: RegistryCredentials,
    progress?: PullListener,
  ): Promise<ImageRecord>;
  /** From an OCI layout directory, an OCI archive or a docker archive on this node. */
  import(
    ctx: Context,
    path: string,
    name: string | undefined,
    progress?: PullListener,
  ): Promise<ImageRecord[]>;
  /** By id, id prefix, tag or digest; undefined when there is none. */
  find(reference: string): ImageRecord | undefined;
  list(): readonly ImageRecord[];
  /** With all its names; its files stay while a container holds them. Succeeds when there is none. */
  remove(ctx: Context, reference: string): Promise<void>;
  usage(): Promise<ImageUsage>;
  parseName(reference: string): ImageName;
}

export interface ImageUsage {
  /** Directory on the file system that holds the device files. */
  readonly mountpoint: string;
  readonly usedBytes: number;
  readonly inodesUsed: number;
}

export type PullListener = (progress: PullProgress) => void;

export interface PullProgress {
  readonly phase: 'resolving' | 'layers' | 'joining' | 'done';
  readonly layersTotal: number;
  readonly layersDone: number;
  /** Compressed bytes. */
  readonly bytesTotal: number;
  readonly bytesDone: number;
}

/** The virtual machines of the node and what they are cloned from, for operators. */
export interface Machines {
  /** Those that there are, and those whose first build runs. */
  templates(): Promise<readonly TemplateFacts[]>;
  /** Builds the template of a domain if there is none, or follows the build that runs. */
  buildTemplate(
    ctx: Context,
    domain: string,
    listener: BuildPhaseListener,
  ): Promise<{ readonly id: string; readonly existed: boolean }>;
  /** Builds it anew; the old one is used until then. @returns the new one's id */
  rotateTemplate(ctx: Context, domain: string, listener: BuildPhaseListener): Promise<string>;
  /** False when there is none of this id. */
  removeTemplate(id: string): Promise<boolean>;
  vms(ctx: Context): Promise<readonly VmFacts[]>;
  /** Everything that is known of one machine, JSON-ready, no secrets. @throws NotFound */
  describeVm(ctx: Context, id: string): Promise<VmReport>;
}

export type VmReport = Readonly<Record<string, unknown>> & { readonly record: VmRecord };

/** Where a build is: preparing → booting → saving → verifying → (done). */
export type BuildPhase = 'preparing' | 'booting' | 'saving' | 'verifying';
export type BuildPhaseListener = (phase: BuildPhase) => void;

export interface TemplateFacts {
  /** Empty while the first of its kind is being built. */
  readonly id: string;
  readonly domain: string;
  readonly shape: VmShape;
  readonly accelerator: Accelerator;
  /** Unix time; 0 while the first of its kind is being built. */
  readonly builtAtMs: number;
  /** VMs that were made of it since the daemon started. */
  readonly uses: number;
  /** What its memory file really takes. */
  readonly memoryBytesUsed: number;
  /** How far a build of this kind is. */
  readonly buildPhase?: BuildPhase;
}

export interface VmFacts {
  readonly record: VmRecord;
  readonly role: 'pod' | 'pool' | 'template';
  /** What the guest has now, when its VM says so. */
  readonly size?: VmShape;
  /** Of the process, while there is one. */
  readonly process?: { readonly startedAtMs: number; readonly pssBytes: number };
}

/** Is the runtime able to run pods at all, and if not why; for the RuntimeReady condition. */
export interface RuntimeHealth {
  readonly ready: boolean;
  readonly reason: string;
  readonly message: string;
}

export interface NodeInfo {
  readonly version: string;
  readonly cgroupDriver: 'systemd' | 'cgroupfs';
  health(): Promise<RuntimeHealth>;
  /** The configuration in force without secrets, for verbose status. */
  describe(): Promise<Readonly<Record<string, unknown>>>;
}

/** Hears of every call that was answered, to count it; it never throws. */
export interface RpcObserver {
  /** @param service without its package, such as `RuntimeService` */
  rpcDone(service: string, method: string, outcome: 'OK' | ErrorClass, ms: number): void;
}
