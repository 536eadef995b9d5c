/** guest/out/manifest.json: what was built, of what, and how it wants to be booted. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { sha256File } from './packages.js';

/** Names of the built files, which stand beside the manifest. */
export const fileNames = { kernel: 'vmlinux', initramfs: 'initramfs.cpio', root: 'root.erofs' } as const;
export const manifestName = 'manifest.json';

/**
 * The kernel command line of every VM; the driver adds `herkos.root=<place of the root device>`, and
 * `console=…` when somebody debugs. Each word is explained in guest/README.md.
 */
export const commandLine = [
  'quiet',
  'loglevel=1',
  'panic=-1',
  'reboot=t',
  'random.trust_cpu=on',
  'tsc=reliable',
  'no_timer_check',
  'noreplace-smp',
  'cryptomgr.notests',
  'swiotlb=noforce',
  'nowatchdog',
  'sysctl.vm.compaction_proactiveness=0',
  'sysctl.vm.stat_interval=10',
  // Plugged memory is used at once, and the kernel decides for what. Movable, it can be taken away again; but
  // all of it movable would leave page tables, the descriptions of the plugged pages and everything else of the
  // kernel to the little memory that the VM has booted with. `auto-movable` keeps the two in proportion.
  'memhp_default_state=online',
  'memory_hotplug.online_policy=auto-movable',
] as const;

const builtFile = z.strictObject({ name: z.string(), bytes: z.number().int(), sha256: z.string() });

const schema = z.strictObject({
  schemaVersion: z.literal(1),
  /** Digest of everything the files depend on: equal inputs, equal files. */
  inputs: z.string(),
  kernelRelease: z.string(),
  commandLine: z.string(),
  files: z.strictObject({ kernel: builtFile, initramfs: builtFile, root: builtFile }),
  /** Debian packages by name, with their versions. */
  packages: z.record(z.string(), z.string()),
  agentSha256: z.string(),
});

export type GuestManifest = z.infer<typeof schema>;

/** The manifest in `directory`; undefined when there is none or it is not understood. */
export async function readManifest(directory: string): Promise<GuestManifest | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(join(directory, manifestName), 'utf8')));
  } catch {
    return undefined;
  }
}

/** True when `directory` holds exactly what `inputs` build. */
export async function isUpToDate(directory: string, inputs: string): Promise<boolean> {
  const manifest = await readManifest(directory);
  if (manifest?.inputs !== inputs) return false;
  for (const { name, sha256 } of Object.values(manifest.files)) {
    const actual = await sha256File(join(directory, name)).catch(() => '');
    if (actual !== sha256) return false;
  }
  return true;
}
