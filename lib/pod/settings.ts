import type { PodDemand } from '../model/resources.js';
import type { VmShape } from '../model/vm.js';

/** What can be set about pods; every time is in milliseconds. */
export interface PodSettings {
  /** Writable disks and output cursors live below it: `disks/`, `cursors/`. */
  readonly stateDirectory: string;
  /** Size limit of a container's writable layer; the file is sparse. */
  readonly writableDiskBytes: number;
  /** Size of the /dev/shm that a pod's containers share. */
  readonly shmBytes: number;
  /** The node's resolver configuration, for pods without their own. */
  readonly resolvConfPath: string;
  /** Pods that start at a time; more wait in the order in which they came. */
  readonly startsAtATime: number;
  readonly deadlines: PodDeadlines;
}

export interface PodDeadlines {
  /** Getting a VM whose process runs. */
  readonly vmMs: number;
  /** From then until the guest's agent answers: a cold boot under emulation takes its time. */
  readonly bootMs: number;
  /** The same for a guest that was cloned; then another is booted in its place. */
  readonly cloneMs: number;
  readonly networkMs: number;
  /** One hot-plug. */
  readonly plugMs: number;
  /** One change of the VM's size, until the guest has taken it. */
  readonly sizeMs: number;
  /** Until a guest that could not spare memory is asked again, for the first time. */
  readonly sizeAgainMs: number;
  /** One request to the guest's agent. */
  readonly guestMs: number;
  /** Making a container's disk. */
  readonly diskMs: number;
  /** A step whose context has ended may take so much longer to stop by itself before it is given up. */
  readonly settleMs: number;
  /** Undoing one step. */
  readonly undoMs: number;
  /** Between the end of a container and EXITED, for the rest of its output. */
  readonly drainMs: number;
  /** From SIGKILL until the container must have ended; after it the VM is killed. */
  readonly killMs: number;
  /** In StopPodSandbox: for containers to be killed and their output to be read. */
  readonly stopContainersMs: number;
  /** In StopPodSandbox: for the guest to sync and power off. */
  readonly shutdownMs: number;
  /** For killing a VM and removing what is left of it. */
  readonly destroyMs: number;
  /** Looking for what no record explains, at start. */
  readonly sweepMs: number;
  /** Between two comparisons of a guest's clock with the host's. */
  readonly clockMs: number;
  /** A guest whose agent cannot be reached for so long is given up. */
  readonly agentLostMs: number;
  /** First and longest wait between two tries of work in the background. */
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
}

export const defaultDeadlines: PodDeadlines = {
  vmMs: 60_000,
  bootMs: 60_000,
  cloneMs: 20_000,
  networkMs: 60_000,
  plugMs: 30_000,
  sizeMs: 30_000,
  sizeAgainMs: 60_000,
  guestMs: 60_000,
  diskMs: 30_000,
  settleMs: 2_000,
  undoMs: 20_000,
  drainMs: 5_000,
  killMs: 10_000,
  stopContainersMs: 5_000,
  shutdownMs: 3_000,
  destroyMs: 20_000,
  sweepMs: 60_000,
  clockMs: 60_000,
  agentLostMs: 60_000,
  retryFirstMs: 250,
  retryMaxMs: 30_000,
};

/**
 * How big a pod's VM is; `lib/vm` decides, the daemon's main function hands it over.
 * @throws ResourceExhausted when this node cannot give a VM so much
 */
export type PodSizing = (demand: PodDemand) => VmShape;
