/** What is in the two images of the guest. */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';

import { programClosure } from './closure.js';
import { loadOrder, moduleInfo, openModuleTree, trimModule } from './modules.js';
import type { ModuleTree } from './modules.js';
import type { GuestPackages } from './packages.js';
import { Tree } from './tree.js';

/**
 * Enough to find the root device and to answer the host: every module here is paid for at each cold boot.
 * crc32c_generic comes before libcrc32c, which looks for an implementation when it loads, as nothing in
 * the guest could load one on request. nfit must not come later: the firmware tells of a plugged NVDIMM
 * once, and nobody would hear it.
 */
const initramfsModules = [
  'virtio_pci',
  'virtio_console',
  'virtio_pmem',
  'nfit',
  'nd_pmem',
  'crc32c_generic',
  'erofs',
];

/** For containers; loaded while the agent serves already. The faster checksum of a CPU may not exist: that is no failure. */
const rootModules = [
  // First: a pod's network is set up while the others load.
  'virtio_net',
  'virtio_blk',
  'crc32c_intel',
  'ext4',
  'overlay',
  'virtio_rng',
  'virtio_mem',
  'virtio_balloon',
  '9p',
  '9pnet_fd',
];

/** Loaded when somebody asks the kernel for them, so that nobody else pays: privileged containers make bridges. */
const demandModules = ['bridge'];

const moduleDirectory = '/lib/modules';
const agentPath = '/sbin/herkos-agent';
/** What the kernel starts for a module that it misses (CONFIG_MODPROBE_PATH). */
const modprobePath = '/sbin/modprobe';
const runtimePath = '/usr/bin/crun';

/**
 * The root is read-only and the same for all machines, so the id of each is in memory. Relative, so that it
 * leads into the guest also for those who see the guest's root at another place.
 */
const machineIdPath = '/etc/machine-id';
const machineIdTarget = '../run/herkos/machine-id';

/** Empty directories that the agent, the OCI runtime and containers mount on. */
const mountPoints = ['/dev', '/etc', '/proc', '/run', '/sys', '/var'];

export interface GuestSources {
  /** Where the kernel's package was unpacked. */
  readonly kernelRoot: string;
  readonly kernelRelease: string;
  /** Where the OCI runtime's packages were unpacked. */
  readonly runtimeRoot: string;
  readonly packages: GuestPackages;
  readonly agent: Buffer;
}

export interface GuestTrees {
  readonly initramfs: Tree;
  readonly root: Tree;
}

export async function guestTrees(sources: GuestSources): Promise<GuestTrees> {
  const modules = await openModuleTree(`${sources.kernelRoot}/lib/modules/${sources.kernelRelease}`);
  const early = await loadOrder(modules, initramfsModules);
  const late = await loadOrder(modules, rootModules, new Set(early.map(({ name }) => name)));

  const initramfs = new Tree().file('/init', sources.agent, 0o755);
  await addModules(initramfs, early, '/modules.list');
  // The kernel opens its first process's standard streams there before anything is mounted.
  initramfs.directory('/dev');

  const root = new Tree().file(agentPath, sources.agent, 0o755).directory('/tmp', 0o1777);
  for (const path of mountPoints) root.directory(path);
  await addModules(root, late, '/etc/herkos/modules.list');
  await addDemandModules(root, modules, new Set([...early, ...late].map(({ name }) => name)));
  root.link(modprobePath, basename(agentPath));
  for (const { path, data } of await programClosure(sources.runtimeRoot, runtimePath))
    root.file(path, data, 0o755);
  root.link(machineIdPath, machineIdTarget);
  root.file('/etc/herkos/versions', versions(sources));
  return { initramfs, root };
}

interface ModuleFile {
  readonly name: string;
  readonly path: string;
}

async function addModules(tree: Tree, modules: readonly ModuleFile[], listPath: string): Promise<void> {
  await addModuleFiles(tree, modules);
  tree.file(listPath, modules.map((module) => `${guestPath(module)}\n`).join(''));
}

/** A line for each name that the kernel may ask for, with all that is to be loaded for it. */
async function addDemandModules(tree: Tree, all: ModuleTree, loaded: ReadonlySet<string>): Promise<void> {
  const lines: string[] = [];
  for (const wanted of demandModules) {
    const order = await loadOrder(all, [wanted], loaded);
    const last = order.at(-1);
    if (last === undefined) continue;
    await addModuleFiles(tree, order);
    const { aliases } = moduleInfo(await readFile(last.path), last.path);
    for (const name of [wanted, ...aliases]) lines.push(`${[name, ...order.map(guestPath)].join(' ')}\n`);
  }
  tree.file('/etc/herkos/modules.demand', lines.join(''));
}

async function addModuleFiles(tree: Tree, modules: readonly ModuleFile[]): Promise<void> {
  for (const module of modules) {
    if (tree.has(guestPath(module))) continue;
    tree.file(guestPath(module), trimModule(await readFile(module.path), module.path));
  }
}

function guestPath({ name }: ModuleFile): string {
  return `${moduleDirectory}/${name}.ko`;
}

/** `name=value` lines; the agent says the OCI runtime's to the host without starting it. */
function versions({ packages, kernelRelease }: GuestSources): string {
  const crun = packages.runtime.find(({ name }) => name === 'crun')?.version ?? 'unknown';
  return `kernel=${kernelRelease}\ncrun=${crun.replace(/-[^-]*$/, '')}\n`;
}

export type { ModuleTree };
