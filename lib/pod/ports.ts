/**
 * What a pod needs of the outside world. The life cycle, once, in the words of this room:
 *
 *   run     acquire a VM ∥ attach the network → plug the NIC → set the guest up → READY
 *   create  hold the image → plug its layers and a writable disk → create in the guest → CREATED
 *   start   start in the guest → pump its output to the log → RUNNING → exit seen → EXITED
 *   stop    signal, wait, kill; then the VM is powered down, killed, and the network given back
 *   remove  containers, then the VM's leftovers, then the record
 *   recover after a restart: adopt what lives, finish or undo what was half done, sweep the rest
 *
 * Every call takes a context first and stops when it ends. Calls named `…gone` succeed when there is nothing.
 */
import type { Context } from '../base/context.js';
import type { ErrorClass } from '../base/errors.js';
import type { ContainerRecord } from '../model/container.js';
import type { ImageRecord, LayerDevice } from '../model/image.js';
import type { GuestInterface, NetworkAttachment } from '../model/network.js';
import type { PhaseTiming, PortMapping, SandboxMetadata, SandboxRecord } from '../model/sandbox.js';
import type { UnixNano } from '../model/time.js';
import type { DeviceLocator, VmExit, VmRecord, VmShape, VmSource } from '../model/vm.js';

/** One record per id; every `put` is durable when it resolves. */
export interface RecordStore<T extends { readonly id: string }> {
  /** All readable records; a broken file is set aside with a warning, never fatal. */
  loadAll(): Promise<T[]>;
  put(record: T): Promise<void>;
  /** Succeeds when there is none. */
  delete(id: string): Promise<void>;
}

export interface PodStores {
  readonly sandboxes: RecordStore<SandboxRecord>;
  readonly containers: RecordStore<ContainerRecord>;
}

/** VMs for pods; implemented by `lib/vm`. */
export interface VmProvider {
  /**
   * Gives the pod a VM whose network namespace and tap exist and whose process runs. Its guest stands still until
   * the pod lets it run with `resume`; a connection made before that waits for it.
   */
  acquire(ctx: Context, request: VmRequest): Promise<PodVm>;
  /**
   * For a VM whose guest does not come up: ends it and boots another in the same namespace and tap, from
   * nothing. What the VM was made of is not used again.
   */
  replaceCold(ctx: Context, sandboxId: string, why: string): Promise<PodVm>;
  /** The VM of a sandbox after a restart, or undefined when its process is gone. */
  adopt(ctx: Context, sandboxId: string): Promise<PodVm | undefined>;
  /** Kills the VM's process and removes everything of it: devices, cgroup, netns, run directory, record. */
  destroyGone(ctx: Context, sandboxId: string): Promise<void>;
  /** Destroys every VM, netns, tap and cgroup of this instance that belongs to no known sandbox; names what it found. */
  sweep(ctx: Context, knownSandboxIds: ReadonlySet<string>): Promise<Swept>;
}

export interface Swept {
  readonly removed: readonly string[];
  readonly left: readonly Leftover[];
}

/** What could not be removed. */
export interface Leftover {
  readonly what: string;
  /** Tries once more. */
  readonly remove: (ctx: Context) => Promise<void>;
}

export interface VmRequest {
  readonly sandboxId: string;
  /** What the pod needs; a VM that starts smaller is brought to it by `resize` once its guest answers. */
  readonly shape: VmShape;
  /** Who may share memory with whom (S4): a tenant's name, or `default`. */
  readonly domain: string;
  readonly cgroupParent: string;
  readonly placeUser?: PlaceUser;
}

/** Who uses a VM's namespace and tap before there is a VM. */
export interface PlaceUser {
  /** They are there, mostly well before the VM's process runs. */
  begin(place: VmPlace): void;
  /** The VM cannot be made, and they go; this is waited for before. */
  end(): Promise<void>;
}

/** Where a VM is on the node's network; the same for whatever VM the sandbox gets. */
export interface VmPlace {
  /** Path of the network namespace that the process runs in. */
  readonly netnsPath: string;
  readonly tap: string;
}

/** A pod's VM with its place on the node. */
export interface PodVm extends VmControls, VmPlace {
  readonly record: VmRecord;
  /** What the guest has now: it may have let something go after `resize` had been given up. */
  size(ctx: Context): Promise<VmShape>;
}

/** What can be done with a VM that runs. After `exited` settles every call fails with `Unavailable`. */
export interface VmControls {
  /** Host side of the agent's virtio-serial port. */
  readonly agentSocketPath: string;
  /** Settles at once when the process ends, however it ends; never rejects (R4). */
  readonly exited: Promise<VmExit>;
  /** The guest begins to run, or goes on; nothing changes when it runs already. Its agent may be connected to before. */
  resume(ctx: Context): Promise<void>;
  /**
   * Plugs a NIC for the address `mac` on the tap; resolves with the address that the guest finds it by.
   * Another one than `mac` when the VM had a card waiting: then the guest has to give it `mac`.
   */
  plugNic(ctx: Context, mac: string): Promise<string>;
  /** Plugs an image's layer files, read-only; files that are plugged already are shared and counted. */
  plugLayers(ctx: Context, owner: string, layers: readonly LayerDevice[]): Promise<DeviceLocator[]>;
  /** Plugs a raw disk image, writable. */
  plugDisk(ctx: Context, owner: string, path: string): Promise<DeviceLocator>;
  /**
   * Plugs a virtio-serial port that the guest knows as `name`. QEMU is the client: it connects to
   * `socketPath`, where somebody listens whom the VM's user may reach, and again whenever the listener
   * comes back.
   */
  plugPort(ctx: Context, owner: string, name: string, socketPath: string): Promise<void>;
  /**
   * Brings the machine to so many vCPUs and so much memory, up or down, never below what it booted with.
   * Resolves with what the guest has taken: it may keep memory that is in use, and vCPUs it does not let go.
   */
  resize(ctx: Context, size: VmShape): Promise<VmShape>;
  /** Unplugs what `owner` plugged and nobody else uses. A guest that ignores the request cannot block: bounded by ctx. */
  unplugGone(ctx: Context, owner: string): Promise<void>;
  /** Asks the guest's firmware to power down; resolves when asked. */
  powerDown(ctx: Context): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  kill(ctx: Context): Promise<void>;
}

/** The pod's network; implemented by `drivers/cni`. */
export interface PodNetwork {
  /** CNI ADD for every configured network, and the path between the namespace's interface and the tap. */
  attach(ctx: Context, request: NetworkRequest): Promise<NetworkAttachment>;
  /** CNI DEL from the cached result; needs no namespace to be there. */
  detachGone(ctx: Context, request: NetworkRequest): Promise<void>;
  /** Gives back the addresses and rules of sandboxes that are not known any more. */
  collectGarbage(ctx: Context, knownSandboxIds: ReadonlySet<string>): Promise<void>;
  /** For the NetworkReady condition; answered from memory or a quick look. */
  status(ctx: Context): Promise<NetworkStatus>;
}

export interface NetworkRequest {
  readonly sandboxId: string;
  readonly metadata: SandboxMetadata;
  readonly netnsPath: string;
  readonly tap: string;
  readonly portMappings: readonly PortMapping[];
}

export interface NetworkStatus {
  readonly ready: boolean;
  /** CamelCase word, such as `NetworkPluginNotReady`; empty when ready. */
  readonly reason: string;
  readonly message: string;
}

/** Images; implemented by `lib/image`. */
export interface PodImages {
  /** By id, id prefix, tag or digest. @throws NotFound */
  resolve(reference: string): ImageRecord;
  /** Keeps the image's files while `owner` (a container id) lives; survives RemoveImage. */
  hold(imageId: string, owner: string): Promise<readonly LayerDevice[]>;
  releaseGone(owner: string): Promise<void>;
  /** Content of a regular file in the image, links followed inside the image; undefined when there is none. */
  readFile(imageId: string, path: string, bytesMax: number): Promise<Buffer | undefined>;
}

/** The agent inside the VM; implemented by `drivers/guest`. Everything it says is bounded and checked (S1). */
export interface GuestConnector {
  /**
   * Connects and says hello; waits for a guest that is still booting until ctx ends. `machineId`: 32 hex
   * digits, the same on every connection to one VM.
   */
  connect(ctx: Context, agentSocketPath: string, machineId: string): Promise<Guest>;
}

export interface Guest {
  readonly info: GuestInfo;
  /** Settles when the connection is lost for good; never rejects. */
  readonly lost: Promise<void>;
  setupPod(ctx: Context, setup: GuestPodSetup): Promise<void>;
  createContainer(ctx: Context, request: GuestContainer): Promise<void>;
  startContainer(ctx: Context, containerId: string): Promise<void>;
  signalContainer(ctx: Context, containerId: string, signal: number, all: boolean): Promise<void>;
  removeContainerGone(ctx: Context, containerId: string): Promise<void>;
  listContainers(ctx: Context): Promise<GuestContainerState[]>;
  /** Past and coming exits, until ctx ends or the connection is lost. */
  watchExits(ctx: Context): AsyncIterable<GuestExit>;
  /** From an offset on, or from the first byte that the guest keeps if it has forgotten what is there. */
  readOutput(ctx: Context, containerId: string, stream: OutputStreamName, fromOffset: bigint): GuestOutput;
  exec(ctx: Context, request: GuestExec): Promise<GuestExecResult>;
  /** Changes the limits of a container; `ociResources`: linux.resources of its config.json, as JSON. */
  updateContainer(ctx: Context, containerId: string, ociResources: Buffer): Promise<void>;
  /** Brings plugged processors online; resolves when there are `count`. */
  onlineCpus(ctx: Context, count: number): Promise<void>;
  memory(ctx: Context): Promise<GuestMemory>;
  /** Moves the guest's clock, half a second or more at once, less over time; resolves with what it is then. */
  adjustClock(ctx: Context, byNanos: bigint): Promise<UnixNano>;
  shutdown(ctx: Context): Promise<void>;
  /** Ends the connection; the guest goes on. Idempotent. */
  close(): Promise<void>;
}

export interface GuestInfo {
  readonly agentVersion: string;
  readonly kernelRelease: string;
  readonly ociRuntimeVersion: string;
  readonly bootMs: number;
  readonly memoryBytes: number;
  readonly cpus: number;
}

/** As its kernel counts it. */
export interface GuestMemory {
  /** Without what the kernel has kept for itself at boot. */
  readonly totalBytes: number;
  /** What programs could still take before anything is killed; never more than the total. */
  readonly availableBytes: number;
}

export interface GuestPodSetup {
  readonly hostname: string;
  readonly hosts: string;
  readonly resolvConf: string;
  readonly interfaces: readonly GuestInterface[];
  readonly sysctls: Readonly<Record<string, string>>;
  readonly shmBytes: number;
}

export interface GuestContainer {
  readonly containerId: string;
  readonly layers: readonly { readonly device: DeviceLocator; readonly subdirs: readonly string[] }[];
  readonly writableDisk: DeviceLocator;
  /** OCI runtime config.json. */
  readonly ociConfig: Buffer;
  readonly stdin: boolean;
}

export interface GuestContainerState {
  readonly containerId: string;
  readonly phase: 'created' | 'running' | 'exited';
  readonly exit?: GuestExit;
}

export interface GuestExit {
  readonly containerId: string;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly finishedAt: UnixNano;
}

export type OutputStreamName = 'stdout' | 'stderr';

export interface GuestOutput extends AsyncIterable<GuestOutputChunk> {
  /** Lets the guest forget everything before `offset`. */
  acknowledge(offset: bigint): void;
}

export interface GuestOutputChunk {
  readonly offset: bigint;
  readonly data: Buffer;
  readonly end: boolean;
}

export interface GuestExec {
  readonly containerId: string;
  /** OCI runtime process object as JSON. */
  readonly ociProcess: Buffer;
  /** Bytes of each output stream that are kept; what is beyond is read and dropped. */
  readonly outputBytesMax: number;
}

export interface GuestExecResult {
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

/** Hears what becomes of pods, to count it; it never throws. */
export interface PodObserver {
  /** Ready. `timings`: of its phases; `total` is from the request on. */
  podStarted(source: VmSource, timings: readonly PhaseTiming[]): void;
  /** Nothing is left of it. */
  podNotStarted(errorClass: ErrorClass): void;
  /** The VM of a ready pod ended, and nobody had asked it to. */
  podVmEnded(): void;
}
