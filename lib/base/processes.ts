/** Processes as /proc shows them (proc(5)). */
import { open, readFile, readdir } from 'node:fs/promises';

import type { Context } from './context.js';
import { sleep } from './context.js';
import { isErrno } from './errors.js';
import { KIB } from './units.js';

export interface ProcessStat {
  /** In clock ticks since boot: with the pid it names a process for good. */
  readonly startTicks: string;
  /** A zombie has ended; only its parent has not noticed yet. */
  readonly ended: boolean;
}

/** Undefined when there is no such process. */
export async function readStat(pid: number): Promise<ProcessStat | undefined> {
  const text = await readGone(`/proc/${String(pid)}/stat`);
  // The second field is the program's name in brackets and may hold anything, brackets too.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
  const state = fields?.[0];
  const startTicks = fields?.[19];
  if (state === undefined || startTicks === undefined) return undefined;
  return { startTicks, ended: state === 'Z' || state === 'X' };
}

/** True while exactly this process runs. */
export async function isAlive(pid: number, startTicks: string): Promise<boolean> {
  const stat = await readStat(pid);
  return stat !== undefined && !stat.ended && stat.startTicks === startTicks;
}

/** SIGKILL; a process that has ended by itself is no error. */
export function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}

/** Kills exactly this process, which is not our child and so gives no event of its end, and waits until it is gone. */
export async function endProcess(ctx: Context, pid: number, startTicks: string): Promise<void> {
  if (await isAlive(pid, startTicks)) killIfThere(pid);
  while (await isAlive(pid, startTicks)) await sleep(ctx, goneCheckMs);
}

/** Effective user of a process; undefined when it is gone. */
export async function effectiveUid(pid: number): Promise<number | undefined> {
  const text = await readGone(`/proc/${String(pid)}/status`);
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(text ?? '')?.[1];
  return uid === undefined ? undefined : Number(uid);
}

export interface ProcessArgs {
  readonly pid: number;
  readonly args: readonly string[];
}

const goneCheckMs = 5;
/** Long enough for QEMU's command line; the marker stands at its begin. */
const commandLineBytesMax = 64 * KIB;

/** The command lines of all processes that have one. */
export async function listProcesses(): Promise<ProcessArgs[]> {
  const found: ProcessArgs[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const text = await readBegin(`/proc/${name}/cmdline`);
    if (text !== undefined && text !== '') found.push({ pid: Number(name), args: text.split('\0') });
  }
  return found;
}

async function readBegin(path: string): Promise<string | undefined> {
  try {
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(
        Buffer.alloc(commandLineBytesMax),
        0,
        commandLineBytesMax,
        0,
      );
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

async function readGone(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return isErrno(error, 'ENOENT') || isErrno(error, 'ESRCH');
}
