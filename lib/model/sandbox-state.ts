/** The moves of a sandbox (drawing in sandbox.ts) as pure functions of records. */
import { HerkosError } from '../base/errors.js';
import type { NetworkAttachment } from './network.js';
import type { PhaseTiming, SandboxPhase, SandboxRecord } from './sandbox.js';

const moves: Readonly<Record<SandboxPhase, readonly SandboxPhase[]>> = {
  creating: ['ready', 'stopping'],
  ready: ['stopping'],
  stopping: ['notready'],
  notready: ['removing'],
  removing: [],
};

function move(record: SandboxRecord, phase: SandboxPhase): SandboxRecord {
  if (!moves[record.phase].includes(phase))
    throw new HerkosError('Internal', `a sandbox cannot go from ${record.phase} to ${phase}`);
  return { ...record, phase };
}

/** From now on an address may be taken for the pod; the sweep must give it back. */
export function withNetworkRequested(record: SandboxRecord, netnsPath: string, tap: string): SandboxRecord {
  return { ...record, networkRequested: true, netnsPath, tap };
}

export function toReady(
  record: SandboxRecord,
  network: NetworkAttachment,
  timings: readonly PhaseTiming[],
): SandboxRecord {
  return { ...move(record, 'ready'), network, timings };
}

/** @param failure why it stops, when nobody asked for it; the first reason is kept. */
export function toStopping(record: SandboxRecord, failure?: string): SandboxRecord {
  if (record.phase === 'stopping') return record;
  return { ...move(record, 'stopping'), ...(failure === undefined ? {} : { failure }) };
}

/** The VM is gone and the network given back. */
export function toNotReady(record: SandboxRecord): SandboxRecord {
  return { ...move(record, 'notready'), networkRequested: false };
}

export function toRemoving(record: SandboxRecord): SandboxRecord {
  return record.phase === 'removing' ? record : move(record, 'removing');
}

/** The kubelet learns a sandbox's id when it is ready. */
export function isSandboxListed(record: SandboxRecord): boolean {
  return record.phase !== 'creating';
}

export function isReady(record: SandboxRecord): boolean {
  return record.phase === 'ready';
}
