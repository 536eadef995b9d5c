import type { ErrorClass } from '../base/errors.js';
import type { RpcObserver } from '../cri/ports.js';
import type { ImageObserver } from '../image/ports.js';
import type { PhaseTiming } from '../model/sandbox.js';
import type { VmSource } from '../model/vm.js';
import type { PodObserver } from '../pod/ports.js';
import type { PoolDrop, VmObserver } from '../vm/ports.js';
import { DomainLabels } from './domain-label.js';
import type { Makers } from './makers.js';

const sources: readonly VmSource[] = ['pool', 'clone', 'cold'];
/** The timing of a pod that is no phase but their end. */
const wholeStart = 'total';
const second = 1_000;

/** In seconds: a clone takes a few tenths, a boot under emulation some seconds. */
const startBuckets = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60];
const phaseBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const rpcBuckets = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const buildBuckets = [1, 2.5, 5, 10, 20, 30, 60, 120];
const pullBuckets = [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

/**
 * Counts what the rooms tell. A label says of what kind a thing is, never which one it is: ids and names
 * of pods would make a new series for each.
 */
export class EventMetrics implements PodObserver, VmObserver, RpcObserver, ImageObserver {
  readonly #domains = new DomainLabels();
  readonly #pods: ReturnType<typeof podMetrics>;
  readonly #vms: ReturnType<typeof vmMetrics>;
  readonly #pool: ReturnType<typeof poolMetrics>;
  readonly #rpcs: ReturnType<typeof rpcMetrics>;
  readonly #images: ReturnType<typeof imageMetrics>;

  constructor(make: Makers) {
    this.#pods = podMetrics(make);
    this.#vms = vmMetrics(make);
    this.#pool = poolMetrics(make);
    this.#rpcs = rpcMetrics(make);
    this.#images = imageMetrics(make);
    this.#showZeros();
  }

  podStarted(source: VmSource, timings: readonly PhaseTiming[]): void {
    for (const { phase, ms } of timings)
      if (phase === wholeStart) this.#pods.starts.observe({ source }, ms / second);
      else this.#pods.phases.observe({ source, phase }, ms / second);
  }

  podNotStarted(errorClass: ErrorClass): void {
    this.#pods.failures.inc({ code: errorClass });
  }

  podVmEnded(): void {
    this.#vms.exits.inc({ role: 'pod' });
  }

  templateBuilt(domain: string, ms: number, hasSucceeded: boolean): void {
    const result = hasSucceeded ? 'ok' : 'failed';
    this.#vms.builds.observe({ domain: this.#domains.of(domain), result }, ms / second);
  }

  templateRefused(domain: string): void {
    this.#vms.refusals.inc({ domain: this.#domains.of(domain) });
  }

  cloneReplaced(domain: string): void {
    this.#vms.replacements.inc({ domain: this.#domains.of(domain) });
  }

  poolAsked(domain: string, hasGiven: boolean): void {
    this.#pool.requests.inc({ domain: this.#domains.of(domain), result: hasGiven ? 'hit' : 'miss' });
  }

  poolFilled(domain: string): void {
    this.#pool.fills.inc({ domain: this.#domains.of(domain) });
  }

  poolFillFailed(): void {
    this.#pool.failures.inc();
  }

  poolDropped(domain: string, reason: PoolDrop): void {
    this.#pool.drops.inc({ domain: this.#domains.of(domain), reason });
    if (reason === 'ended') this.#vms.exits.inc({ role: 'pool' });
  }

  rpcDone(service: string, method: string, code: 'OK' | ErrorClass, ms: number): void {
    this.#rpcs.count.inc({ service, method, code });
    this.#rpcs.seconds.observe({ service, method }, ms / second);
  }

  pullDone(outcome: 'OK' | ErrorClass, ms: number): void {
    this.#images.pulls.observe({ result: outcome === 'OK' ? 'ok' : 'failed' }, ms / second);
  }

  /** More of a layer has come from a registry. */
  pulled(bytes: number): void {
    this.#images.bytes.inc(bytes);
  }

  /** A series that begins with its first event hides it from `rate`. */
  #showZeros(): void {
    for (const source of sources) this.#pods.starts.zero({ source });
    for (const role of ['pod', 'pool']) this.#vms.exits.inc({ role }, 0);
    for (const result of ['ok', 'failed']) this.#images.pulls.zero({ result });
  }
}

function podMetrics(make: Makers) {
  return {
    starts: make.histogram(
      'pod_start_seconds',
      'From RunPodSandbox to a ready pod, by where its VM came from.',
      startBuckets,
      'source',
    ),
    phases: make.histogram(
      'pod_start_phase_seconds',
      'Phases of the start of a pod; some run at the same time.',
      phaseBuckets,
      'source',
      'phase',
    ),
    failures: make.counter('pod_start_failures_total', 'Pods that did not start.', 'code'),
  };
}

function vmMetrics(make: Makers) {
  return {
    exits: make.counter('vm_unexpected_exits_total', 'VMs that ended and were not asked to.', 'role'),
    builds: make.histogram(
      'template_build_seconds',
      'Builds of templates.',
      buildBuckets,
      'domain',
      'result',
    ),
    refusals: make.counter('template_refusals_total', 'Templates that were found unusable.', 'domain'),
    replacements: make.counter(
      'clone_replacements_total',
      'Clones that did not come up; their pods got VMs that boot.',
      'domain',
    ),
  };
}

function poolMetrics(make: Makers) {
  return {
    requests: make.counter('pool_requests_total', 'Pods that asked the pool.', 'domain', 'result'),
    fills: make.counter('pool_fills_total', 'VMs that were made ready for the pool.', 'domain'),
    failures: make.counter('pool_fill_failures_total', 'VMs that could not be made ready for the pool.'),
    drops: make.counter(
      'pool_drops_total',
      'VMs of the pool that were given up before a pod took them.',
      'domain',
      'reason',
    ),
  };
}

function rpcMetrics(make: Makers) {
  return {
    count: make.counter('rpc_total', 'Requests that were answered.', 'service', 'method', 'code'),
    seconds: make.histogram('rpc_seconds', 'From a request to its answer.', rpcBuckets, 'service', 'method'),
  };
}

function imageMetrics(make: Makers) {
  return {
    pulls: make.histogram('image_pull_seconds', 'Pulls of images.', pullBuckets, 'result'),
    bytes: make.counter('image_pull_bytes_total', 'Compressed bytes of images that registries have sent.'),
  };
}
