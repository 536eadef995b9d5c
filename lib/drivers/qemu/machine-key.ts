import { createHash } from 'node:crypto';
import { readFile, realpath, stat } from 'node:fs/promises';

import { once } from '../../base/once.js';
import type { Accelerator, VmShape } from '../../model/vm.js';
import { commandLine } from './command-line.js';
import { firstCardCommands } from './first-card.js';
import { rootBytes } from './guest-files.js';
import { findProgram } from './program.js';
import type { QemuSettings } from './settings.js';

/** Stand-ins for what differs between a template and its clones and has no part in the machine. */
const anyPaths = {
  directory: '/vm',
  qmpSocket: '/vm/qmp',
  agentSocket: '/vm/agent',
  log: '/vm/log',
  devices: '/vm/devices.json',
  incomingSocket: '/vm/in',
};

const anyImage = { memory: { path: '/template/memory', inode: 0 }, statePath: '', directory: '', gid: 0 };

/**
 * A digest of everything that a clone must have in common with its template: the machine's whole command
 * line, the guest's files, the hypervisor's program as it lies on the disk, and the processor, of which
 * the guest's kernel remembers the features it booted with.
 */
export async function machineKey(
  settings: QemuSettings,
  machine: { readonly shape: VmShape; readonly accelerator: Accelerator; readonly mergeable: boolean },
): Promise<string> {
  const { guest } = settings;
  const memory = { kind: 'template', image: anyImage } as const;
  const args = commandLine(settings, {
    processName: 'template',
    ...machine,
    guest,
    guestRootBytes: await rootBytes(guest),
    paths: anyPaths,
    memory,
    plugged: firstCardCommands(memory, 'tap'),
  });
  const inputs = {
    args,
    guest: guest.digest,
    // Somebody may put another guest in the place of the one that this daemon began with.
    guestFiles: await Promise.all([guest.kernel, guest.initramfs, guest.root ?? ''].map(fileIdentity)),
    // Not its version: that would start it for every pod, and misses a rebuild.
    program: await fileIdentity(await realpath(await findProgram(settings.binary))),
    processor: await processor(),
  };
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex');
}

async function fileIdentity(path: string): Promise<string> {
  if (path === '') return '';
  const { size, mtimeMs, ino } = await stat(path);
  return [path, ino, size, mtimeMs].join(' ');
}

/** Model, microcode and features, which stay while the node runs; not the frequency, which changes all the time. */
const processor = once(async () => {
  const text = await readFile('/proc/cpuinfo', 'utf8');
  const first = text.split('\n\n')[0] ?? '';
  return first
    .split('\n')
    .filter((line) => /^(vendor_id|cpu family|model|stepping|microcode|flags|Features)\b/.test(line))
    .join('\n');
});
