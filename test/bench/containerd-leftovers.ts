/** What stays of a containerd that ended while it still had pods: its shims, their containers, mounts and namespaces. */
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';
import { listProcesses } from '../../lib/base/processes.js';

const netnsDirectory = '/run/netns';

/** @param directory of the containerd that has ended; nothing outside belongs to its pods but namespaces */
export async function sweepContainerd(directory: string): Promise<void> {
  const pids = await podProcesses(directory);
  const names = await netnsOf(pids);
  for (const pid of pids) kill(pid);
  for (const path of await mountsBelow(directory)) await run('umount', ['--lazy', path]);
  for (const name of names) await run('ip', ['netns', 'delete', name]);
}

/** Shims name their containerd's socket; containers are their children. */
async function podProcesses(directory: string): Promise<number[]> {
  const shims = (await listProcesses())
    .filter(({ args }) => args.some((word) => word.startsWith(`${directory}/`)))
    .map(({ pid }) => pid);
  if (shims.length === 0) return [];
  const children = await run('pgrep', ['--parent', shims.join(',')]);
  return [...shims, ...children.split('\n').filter(Boolean).map(Number)];
}

/** Names of the namespaces that the processes are in; the one that we are in has none. */
async function netnsOf(pids: readonly number[]): Promise<string[]> {
  const inodes = new Set(await Promise.all(pids.map(async (pid) => inode(`/proc/${String(pid)}/ns/net`))));
  inodes.delete(undefined);
  const found: string[] = [];
  for (const name of await readdir(netnsDirectory).catch(() => []))
    if (inodes.has(await inode(join(netnsDirectory, name)))) found.push(name);
  return found;
}

async function inode(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.ino;
}

/** The innermost first (proc(5), mountinfo: the fifth field is the mount point). */
async function mountsBelow(directory: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return lines
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${directory}/`))
    .reverse();
}

/** What is gone already is as good as removed. */
async function run(command: string, args: readonly string[]): Promise<string> {
  const { stdout } = await systemExec.run(background(), command, args, { okExitCodes: [0, 1, 32] });
  return stdout.toString();
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself meanwhile.
  }
}
