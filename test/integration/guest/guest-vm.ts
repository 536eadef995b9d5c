/** The real guest in a real VM, with the agent suite's programs in a layer of its own. */
import { readFile, truncate, writeFile } from 'node:fs/promises';

import { expect } from 'chai';

import { Tree } from '../../../guest/tree.js';
import { rootDeviceFile } from '../../../guest/root-image.js';
import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { newId } from '../../../lib/base/ids.js';
import { AgentConnector } from '../../../lib/drivers/guest/connector.js';
import type { QemuSettings } from '../../../lib/drivers/qemu/settings.js';
import type { LayerDevice } from '../../../lib/model/image.js';
import type { DeviceLocator } from '../../../lib/model/vm.js';
import type { Guest, GuestContainer } from '../../../lib/pod/ports.js';
import type { RunningVm } from '../../../lib/vm/ports.js';
import type { GuestAgentHarness } from '../../suites/guest-agent.js';
import { guestPrograms } from '../../fakes/guest-containers.js';
import { qemuHarness } from '../vm/qemu-harness.js';
import { testMachineId } from '../../tools/machine-id.js';

const ctx = background();
const diskBytes = 16 * 1024 * 1024;
const applets = [
  'adjtimex',
  'cat',
  'dd',
  'echo',
  'head',
  'ls',
  'mount',
  'printf',
  'sh',
  'sleep',
  'sync',
  'wc',
];

export interface GuestVm extends GuestAgentHarness {
  /** A container that sees the processes of the whole guest, and with them what its agent has mounted. */
  newPeekingContainer(args: readonly string[]): Promise<GuestContainer>;
  readonly vm: RunningVm;
  readonly layer: LayerDevice;
  /** The image that the guest has booted from. */
  readonly guestRoot: string;
}

export async function guestVm(overrides: Partial<QemuSettings> = {}): Promise<GuestVm> {
  const harness = await qemuHarness({ portCount: 40, ...overrides });
  try {
    const vm = await harness.running();
    const content = await layerFile();
    const layer = await harness.newLayer(content.length);
    await writeFile(layer.path, content);
    const guests: Guest[] = [];
    const plugDisk = async (owner: string): Promise<DeviceLocator> => {
      const path = await harness.newDisk();
      await truncate(path, diskBytes);
      await systemExec.run(ctx, 'mkfs.ext4', ['-q', '-F', path]);
      return vm.plugDisk(ctx, owner, path);
    };
    const newContainer = async (
      args: readonly string[],
      namespaces: readonly string[],
    ): Promise<GuestContainer> => {
      const containerId = newId();
      const [device] = await vm.plugLayers(ctx, containerId, [layer]);
      if (device === undefined) throw new Error('the layer was not plugged');
      return {
        containerId,
        layers: [{ device, subdirs: [''] }],
        writableDisk: await plugDisk(containerId),
        ociConfig: Buffer.from(JSON.stringify(ociConfig(args, namespaces))),
        stdin: false,
      };
    };
    return {
      vm,
      layer,
      guestRoot: harness.settings.guest.root ?? '',
      connect: async () => {
        const guest = await new AgentConnector().connect(ctx, vm.agentSocketPath, testMachineId);
        guests.push(guest);
        return guest;
      },
      newContainer: (args) => newContainer(args, ['pid', 'mount', 'ipc']),
      newPeekingContainer: (args) => newContainer(args, ['mount']),
      newProcess: (args, fields) => Buffer.from(JSON.stringify({ ...ociProcess(args), ...fields })),
      cleanUp: async () => {
        for (const guest of guests) await guest.close();
        await harness.cleanUp();
      },
    };
  } catch (error) {
    await harness.cleanUp();
    throw error;
  }
}

/** Starts a container that sees the whole guest and waits in it; its id. */
export async function startPeeking(vm: GuestVm, guest: Guest): Promise<string> {
  const container = await vm.newPeekingContainer(guestPrograms.waitForTerm(0));
  await guest.createContainer(ctx, container);
  await guest.startContainer(ctx, container.containerId);
  return container.containerId;
}

/** Standard output of a shell script in a container; it must succeed. */
export async function runShell(
  vm: GuestVm,
  guest: Guest,
  containerId: string,
  script: string,
): Promise<string> {
  const ociProcess = vm.newProcess(['/bin/sh', '-c', script]);
  const { exitCode, stdout, stderr } = await guest.exec(ctx, {
    containerId,
    ociProcess,
    outputBytesMax: 65_536,
  });
  expect(exitCode, stderr.toString()).to.equal(0);
  return stdout.toString();
}

/** busybox and the directories a container needs, as a layer's device file. */
async function layerFile(): Promise<Buffer> {
  const tree = new Tree().file('/bin/busybox', await readFile('/bin/busybox'), 0o755);
  for (const name of applets) tree.link(`/bin/${name}`, 'busybox');
  for (const path of ['/dev', '/etc', '/proc', '/root', '/sys']) tree.directory(path);
  return rootDeviceFile(tree.directory('/tmp', 0o1777));
}

function ociProcess(args: readonly string[]): Record<string, unknown> {
  // Root with all it may do inside a container by default: the guest is the boundary that is tested here.
  const capabilities = ['CAP_KILL', 'CAP_DAC_OVERRIDE', 'CAP_SYS_ADMIN', 'CAP_MKNOD', 'CAP_SYS_PTRACE'];
  return {
    args,
    cwd: '/',
    env: ['PATH=/bin'],
    user: { uid: 0, gid: 0 },
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
  };
}

function ociConfig(args: readonly string[], namespaces: readonly string[]): Record<string, unknown> {
  return {
    ociVersion: '1.0.2',
    process: ociProcess(args),
    root: { path: 'replaced' },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
    ],
    linux: {
      namespaces: namespaces.map((type) => ({ type })),
      resources: { devices: [{ allow: true, access: 'rwm' }] },
    },
  };
}
