/** What a daemon has made on this machine, found from outside: by names, without asking it (R2). */
import { readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { systemExec } from '../../lib/base/exec.js';

const netnsDirectory = '/run/netns';
const cgroupRoot = '/sys/fs/cgroup';
/** Directories of which every entry belongs to a pod; relative to the daemon's own directory. */
const podDirectories = [
  'run/vm',
  'state/disks',
  'state/cursors',
  'state/sandboxes',
  'state/containers',
  'state/vms',
  'state/cni/attachments',
];

/** Everything of `instance` that is there for a pod, one line each; empty when all pods are gone. */
export async function findLeftovers(instance: string, directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const { pid, name } of await processesOf(`herkos-${instance}-`))
    found.push(`process ${String(pid)} ${name}`);
  for (const name of await netnsOf(instance)) found.push(`netns ${name}`);
  for (const path of await cgroupsOf(instance)) found.push(`cgroup ${path}`);
  for (const place of podDirectories) {
    for (const name of await entries(join(directory, place))) found.push(`${place}/${name}`);
  }
  found.push(...(await leases(join(directory, 'state/cni/ipam'))));
  for (const rule of await natRulesOf(instance)) found.push(`nat ${rule}`);
  return found;
}

/** Ends and removes all of it, for the clean-up after a test that failed. */
export async function sweepLeftovers(instance: string, directory: string): Promise<void> {
  const processes = async (): Promise<{ pid: number }[]> => [
    ...(await processesOf(`herkos-${instance}-`)),
    // Templates outlive the daemon.
    ...(await processesOf(`herkos-memory-${instance}-`)),
  ];
  for (const { pid } of await processes()) kill(pid);
  while ((await processes()).length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  for (const name of await netnsOf(instance))
    await systemExec.run(background(), 'ip', ['netns', 'delete', name], { okExitCodes: [0, 1] });
  await removeNatRules(await natRulesOf(instance));
  for (const path of await cgroupsOf(instance)) await removeCgroup(path);
  for (const path of await instanceCgroups(instance)) await removeCgroup(path);
  // The devices that VM processes see are on a file system of their own.
  // So are templates.
  for (const place of ['run/dev', 'run/templates'])
    await systemExec.run(background(), 'umount', ['--lazy', join(directory, place)], {
      okExitCodes: [0, 1, 32],
    });
  await rm(directory, { recursive: true, force: true });
}

/** Those whose command line holds `marker`. */
async function processesOf(marker: string): Promise<{ pid: number; name: string }[]> {
  const found: { pid: number; name: string }[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const line = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '');
    const state = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
    const isZombie = state.includes(') Z ');
    if (line.includes(marker) && !isZombie) {
      const from = line.indexOf(marker);
      found.push({ pid: Number(entry), name: line.slice(from, from + marker.length + 12) });
    }
  }
  return found;
}

async function netnsOf(instance: string): Promise<string[]> {
  return (await entries(netnsDirectory)).filter((name) => name.startsWith(`${instance}-`));
}

/** The instance's own parent cgroup in each hierarchy. */
async function instanceCgroups(instance: string): Promise<string[]> {
  const roots = [cgroupRoot, ...(await entries(cgroupRoot)).map((name) => join(cgroupRoot, name))];
  const found: string[] = [];
  for (const root of roots) {
    if ((await entries(root)).includes(instance)) found.push(join(root, instance));
  }
  return found;
}

async function cgroupsOf(instance: string): Promise<string[]> {
  const found: string[] = [];
  for (const parent of await instanceCgroups(instance)) {
    const names = (await entries(parent)).filter((name) => name.startsWith('herkos-'));
    found.push(...names.map((name) => join(parent, name)));
  }
  return found;
}

/** Rules of CNI plugins, which name the network in a comment; as `iptables -S` writes them. */
async function natRulesOf(instance: string): Promise<string[]> {
  const { stdout } = await systemExec.run(background(), 'iptables', ['-w', '-t', 'nat', '-S']);
  return stdout
    .toString()
    .split('\n')
    .filter((line) => line.includes(`\\"${instance}-`));
}

/** And the chains that they are in or lead to. */
async function removeNatRules(rules: readonly string[]): Promise<void> {
  const chains = new Set(rules.flatMap((rule) => rule.match(/CNI-(DN-)?[0-9a-f]{20,}/g) ?? []));
  const commands = [
    ...rules.map((rule) => rule.replace('-A', '-D')),
    ...[...chains].map((chain) => `-F ${chain}`),
    ...[...chains].map((chain) => `-X ${chain}`),
  ];
  // The shell, because of the quotes in comments.
  const script = commands.map((command) => `iptables -w -t nat ${command}`).join('\n');
  await systemExec.run(background(), 'sh', ['-ec', script]);
}

/** host-local's address files. */
async function leases(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const network of await entries(directory)) {
    const names = await entries(join(directory, network));
    found.push(...names.filter((name) => /^[0-9a-f.:]+$/.test(name)).map((name) => `lease ${name}`));
  }
  return found;
}

async function entries(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => []);
}

async function removeCgroup(path: string): Promise<void> {
  await systemExec.run(background(), 'rmdir', [path], { okExitCodes: [0, 1] });
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself meanwhile.
  }
}
