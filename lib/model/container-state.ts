/**
 * The moves of a container (drawing in container.ts) as pure functions: each takes a record and returns
 * the next one, or throws when the move does not exist.
 */
import { HerkosError } from '../base/errors.js';
import type { ContainerExit, ContainerPhase, ContainerRecord } from './container.js';
import type { UnixNano } from './time.js';
import { noTime } from './time.js';

/** Exit code and reason when nobody can say how a container ended. */
export const exitUnknown: ContainerExit = {
  code: 255,
  reason: 'Unknown',
  message: 'the pod’s virtual machine ended before the container’s exit was seen',
};

const moves: Readonly<Record<ContainerPhase, readonly ContainerPhase[]>> = {
  creating: ['created', 'removing'],
  created: ['starting', 'exited', 'removing'],
  // Back to `created`: the daemon ended before the guest was asked to start it.
  starting: ['running', 'created', 'exited', 'removing'],
  running: ['exited', 'removing'],
  exited: ['removing'],
  removing: [],
};

function move(record: ContainerRecord, phase: ContainerPhase): ContainerRecord {
  if (!moves[record.phase].includes(phase))
    throw new HerkosError('Internal', `a container cannot go from ${record.phase} to ${phase}`);
  return { ...record, phase };
}

export function toCreated(record: ContainerRecord): ContainerRecord {
  return move(record, 'created');
}

export function toStarting(record: ContainerRecord): ContainerRecord {
  return move(record, 'starting');
}

export function toRunning(record: ContainerRecord, startedAt: UnixNano): ContainerRecord {
  return { ...move(record, 'running'), startedAt };
}

/** @param finishedAt as the guest says; bounded by what the host knows, because the guest may lie or have a wrong clock. */
export function toExited(
  record: ContainerRecord,
  exit: ContainerExit,
  finishedAt: UnixNano,
  now: UnixNano,
): ContainerRecord {
  const earliest = record.startedAt === noTime ? record.createdAt : record.startedAt;
  return { ...move(record, 'exited'), exit, finishedAt: clamp(finishedAt, earliest, now) };
}

export function toRemoving(record: ContainerRecord): ContainerRecord {
  return record.phase === 'removing' ? record : move(record, 'removing');
}

/** Clients learn of a container when it has been created in full. */
export function isContainerListed(record: ContainerRecord): boolean {
  return record.phase !== 'creating';
}

/** Ended, or on its way out: nothing of it runs. */
export function hasExited(record: ContainerRecord): boolean {
  return record.phase === 'exited' || record.phase === 'removing';
}

/** May the guest still run a process of it? */
export function mayRun(record: ContainerRecord): boolean {
  return record.phase === 'starting' || record.phase === 'running';
}

/** How a seen end is told to clients (cri-behaviour §1.5). The code is bounded: the guest sends any number. */
export function exitOf(exitCode: number, oomKilled: boolean): ContainerExit {
  const code = Number.isInteger(exitCode) && exitCode >= 0 && exitCode <= 255 ? exitCode : 255;
  if (oomKilled) return { code, reason: 'OOMKilled', message: 'a process was killed for lack of memory' };
  return { code, reason: code === 0 ? 'Completed' : 'Error', message: '' };
}

function clamp(value: UnixNano, low: UnixNano, high: UnixNano): UnixNano {
  // The host's own clock may have been set back meanwhile.
  if (BigInt(high) < BigInt(low)) return low;
  if (!/^\d{1,20}$/.test(value) || BigInt(value) > BigInt(high)) return high;
  return BigInt(value) < BigInt(low) ? low : value;
}
