import type { ErrorClass } from '../../lib/base/errors.js';
import type { RpcObserver } from '../../lib/cri/ports.js';
import type { ImageObserver } from '../../lib/image/ports.js';
import type { PhaseTiming } from '../../lib/model/sandbox.js';
import type { VmSource } from '../../lib/model/vm.js';
import type { PodObserver } from '../../lib/pod/ports.js';
import type { PoolDrop, VmObserver } from '../../lib/vm/ports.js';

/** Keeps what it was told, as lines without times; times that cannot be are an error. */
export class FakeObserver implements PodObserver, VmObserver, RpcObserver, ImageObserver {
  readonly told: string[] = [];

  /** How often it was told what begins so. */
  count(start: string): number {
    return this.told.filter((line) => line.startsWith(start)).length;
  }

  podStarted(source: VmSource, timings: readonly PhaseTiming[]): void {
    for (const { ms } of timings) check(ms);
    this.told.push(`pod started ${source}: ${timings.map(({ phase }) => phase).join(' ')}`);
  }

  podNotStarted(errorClass: ErrorClass): void {
    this.told.push(`pod not started ${errorClass}`);
  }

  podVmEnded(): void {
    this.told.push('VM of a pod ended');
  }

  templateBuilt(domain: string, ms: number, hasSucceeded: boolean): void {
    check(ms);
    this.told.push(`template ${hasSucceeded ? 'built' : 'not built'} ${domain}`);
  }

  templateRefused(domain: string): void {
    this.told.push(`template refused ${domain}`);
  }

  cloneReplaced(domain: string): void {
    this.told.push(`clone replaced ${domain}`);
  }

  poolAsked(domain: string, hasGiven: boolean): void {
    this.told.push(`pool ${hasGiven ? 'hit' : 'missed'} ${domain}`);
  }

  poolFilled(domain: string): void {
    this.told.push(`pool filled ${domain}`);
  }

  poolFillFailed(): void {
    this.told.push('pool not filled');
  }

  poolDropped(domain: string, why: PoolDrop): void {
    this.told.push(`pool dropped ${domain} ${why}`);
  }

  rpcDone(service: string, method: string, outcome: 'OK' | ErrorClass, ms: number): void {
    check(ms);
    this.told.push(`rpc ${service} ${method} ${outcome}`);
  }

  pullDone(outcome: 'OK' | ErrorClass, ms: number): void {
    check(ms);
    this.told.push(`pull ${outcome}`);
  }
}

function check(ms: number): void {
  if (!Number.isFinite(ms) || ms < 0) throw new Error(`a time of ${String(ms)} ms`);
}
