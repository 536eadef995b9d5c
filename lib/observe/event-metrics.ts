import type { Registry } from 'prom-client';
import { Counter, Histogram } from 'prom-client';

import type { ErrorClass } from '../base/errors.js';
import type { RpcObserver } from '../cri/ports.js';
import type { ImageObserver } from '../image/ports.js';
import type { PhaseTiming } from '../model/sandbox.js';
import type { VmSource } from '../model/vm.js';
import type { PodObserver } from '../pod/ports.js';
import type { PoolDrop, VmObserver } from '../vm/ports.js';
import { DomainLabels } from './domain-label.js';

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
  readonly #starts: Histogram<'source'>;
  readonly #phases: Histogram<'source' | 'phase'>;
  readonly #startFailures: Counter<'code'>;
  readonly #vmEnds: Counter<'role'>;
  readonly #builds: Histogram<'domain' | 'result'>;
  readonly #refusals: Counter<'domain'>;
  readonly #replacements: Counter<'domain'>;
  readonly #poolAsked: Counter<'domain' | 'result'>;
  readonly #poolFills: Counter<'domain'>;
  readonly #poolFillFailures: Counter;
  readonly #poolDrops: Counter<'domain' | 'reason'>;
  readonly #rpcs: Counter<'service' | 'method' | 'code'>;
  readonly #rpcSeconds: Histogram<'service' | 'method'>;
  readonly #pulls: Histogram<'result'>;
  readonly #pulledBytes: Counter;

  constructor(registry: Registry) {
    const counter = <T extends string>(name: string, help: string, ...labelNames: T[]): Counter<T> =>
      new Counter({ name: `herkos_${name}`, help, labelNames, registers: [registry] });
    const histogram = <T extends string>(
      name: string,
      help: string,
      buckets: number[],
      ...labelNames: T[]
    ): Histogram<T> =>
      new Histogram({ name: `herkos_${name}`, help, buckets, labelNames, registers: [registry] });

    this.#starts = histogram(
      'pod_start_seconds',
      'From RunPodSandbox to a ready pod, by where its VM came from.',
      startBuckets,
      'source',
    );
    this.#phases = histogram(
      'pod_start_phase_seconds',
      'Phases of the start of a pod; some run at the same time.',
      phaseBuckets,
      'source',
      'phase',
    );
    this.#startFailures = counter('pod_start_failures_total', 'Pods that did not start.', 'code');
    this.#vmEnds = counter('vm_unexpected_exits_total', 'VMs that ended and were not asked to.', 'role');
    this.#builds = histogram(
      'template_build_seconds',
      'Builds of templates.',
      buildBuckets,
      'domain',
      'result',
    );
    this.#refusals = counter('template_refusals_total', 'Templates that were found unusable.', 'domain');
    this.#replacements = counter(
      'clone_replacements_total',
      'Clones that did not come up; their pods got VMs that boot.',
      'domain',
    );
    this.#poolAsked = counter('pool_requests_total', 'Pods that asked the pool.', 'domain', 'result');
    this.#poolFills = counter('pool_fills_total', 'VMs that were made ready for the pool.', 'domain');
    this.#poolFillFailures = counter('pool_fill_failures_total', 'VMs that could not be made ready.');
    this.#poolDrops = counter(
      'pool_drops_total',
      'VMs of the pool that were given up before a pod took them.',
      'domain',
      'reason',
    );
    this.#rpcs = counter('rpc_total', 'Requests that were answered.', 'service', 'method', 'code');
    this.#rpcSeconds = histogram(
      'rpc_seconds',
      'From a request to its answer.',
      rpcBuckets,
      'service',
      'method',
    );
    this.#pulls = histogram('image_pull_seconds', 'Pulls of images.', pullBuckets, 'result');
    this.#pulledBytes = counter('image_pull_bytes_total', 'Bytes of layers that registries have sent.');
    this.#showZeros();
  }

  podStarted(source: VmSource, timings: readonly PhaseTiming[]): void {
    for (const { phase, ms } of timings)
      if (phase === wholeStart) this.#starts.observe({ source }, ms / second);
      else this.#phases.observe({ source, phase }, ms / second);
  }

  podNotStarted(errorClass: ErrorClass): void {
    this.#startFailures.inc({ code: errorClass });
  }

  podVmEnded(): void {
    this.#vmEnds.inc({ role: 'pod' });
  }

  templateBuilt(domain: string, ms: number, hasSucceeded: boolean): void {
    const result = hasSucceeded ? 'ok' : 'failed';
    this.#builds.observe({ domain: this.#domains.of(domain), result }, ms / second);
  }

  templateRefused(domain: string): void {
    this.#refusals.inc({ domain: this.#domains.of(domain) });
  }

  cloneReplaced(domain: string): void {
    this.#replacements.inc({ domain: this.#domains.of(domain) });
  }

  poolAsked(domain: string, hasGiven: boolean): void {
    this.#poolAsked.inc({ domain: this.#domains.of(domain), result: hasGiven ? 'hit' : 'miss' });
  }

  poolFilled(domain: string): void {
    this.#poolFills.inc({ domain: this.#domains.of(domain) });
  }

  poolFillFailed(): void {
    this.#poolFillFailures.inc();
  }

  poolDropped(domain: string, reason: PoolDrop): void {
    this.#poolDrops.inc({ domain: this.#domains.of(domain), reason });
    if (reason === 'ended') this.#vmEnds.inc({ role: 'pool' });
  }

  rpcDone(service: string, method: string, code: 'OK' | ErrorClass, ms: number): void {
    this.#rpcs.inc({ service, method, code });
    this.#rpcSeconds.observe({ service, method }, ms / second);
  }

  pullDone(outcome: 'OK' | ErrorClass, ms: number): void {
    this.#pulls.observe({ result: outcome === 'OK' ? 'ok' : 'failed' }, ms / second);
  }

  /** More of a layer has come from a registry. */
  pulled(bytes: number): void {
    this.#pulledBytes.inc(bytes);
  }

  /** A series that begins with its first event hides it from `rate`. */
  #showZeros(): void {
    for (const source of sources) this.#starts.zero({ source });
    for (const role of ['pod', 'pool']) this.#vmEnds.inc({ role }, 0);
    for (const result of ['ok', 'failed']) this.#pulls.zero({ result });
  }
}
