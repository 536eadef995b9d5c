import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { systemExec } from '../../../lib/base/exec.js';
import { newId } from '../../../lib/base/ids.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { HostCgroups } from '../../../lib/drivers/cgroup/cgroup-factory.js';
import { CniNetnsFactory } from '../../../lib/drivers/cni/netns.js';
import { FileRecordStore } from '../../../lib/drivers/store/record-store.js';
import type { VmRecord } from '../../../lib/model/vm.js';
import { VmManager } from '../../../lib/vm/manager.js';
import type { VmDriver } from '../../../lib/vm/ports.js';
import { hostHelper } from '../../tools/host-helper.js';
import { vmRoomParts, vmSettingsFor } from '../../tools/vm-room.js';
import { rejection } from '../../tools/rejection.js';
import type { QemuHarness } from './qemu-harness.js';
import { qemuHarness } from './qemu-harness.js';

const ctx = background();
const shape = { vcpus: 1, memoryMib: 192 };

/** Directories of a cgroup in all hierarchies of this host. */
async function cgroupsNamed(id: string, parent: string): Promise<string[]> {
  const { stdout } = await systemExec.run(
    ctx,
    'find',
    ['/sys/fs/cgroup', '-maxdepth', '4', '-path', `*${parent}/herkos-${id}`],
    { okExitCodes: [0, 1] },
  );
  return stdout
    .toString('utf8')
    .trim()
    .split('\n')
    .filter((line) => line !== '');
}

const nothing = { removed: [], left: [] };

describe('VMs of a node, with real namespaces, cgroups and records', () => {
  let harness: QemuHarness;
  let parent: string;

  beforeEach(async () => {
    harness = await qemuHarness();
    parent = `/herkos-test-${harness.settings.instance}`;
  });

  afterEach(async () => {
    await manager().sweep(ctx, new Set());
    await harness.cleanUp();
    const { stdout } = await systemExec.run(ctx, 'find', [
      '/sys/fs/cgroup',
      '-maxdepth',
      '2',
      '-name',
      parent.slice(1),
    ]);
    for (const left of stdout
      .toString('utf8')
      .split('\n')
      .filter((line) => line !== ''))
      await systemExec.run(ctx, 'rmdir', [left]);
  });

  const manager = (driver: VmDriver = harness.restartedDriver()): VmManager =>
    new VmManager({
      ...vmRoomParts(vmSettingsFor(harness.directory, harness.settings)),
      driver,
      netns: new CniNetnsFactory(systemExec, harness.settings.instance, hostHelper),
      cgroups: new HostCgroups({ defaultParent: parent }),
      store: new FileRecordStore<VmRecord>({
        directory: join(harness.settings.stateDir, 'vms'),
        schemaVersion: 1,
        logger: silentLogger,
      }),
      logger: silentLogger,
    });

  it('puts the process under its limits and takes everything away again', async () => {
    const vms = manager();
    const sandboxId = newId();
    const vm = await vms.acquire(ctx, {
      sandboxId,
      shape,
      domain: 'default',
      cgroupParent: `${parent}/pod1`,
    });
    const membership = (await readFile(`/proc/${String(vm.record.pid)}/cgroup`, 'utf8'))
      .split('\n')
      .filter((line) => line.endsWith(`${parent}/pod1/herkos-${sandboxId}`));
    const directories = await cgroupsNamed(sandboxId, `${parent}/pod1`);
    expect(directories).to.have.length.greaterThan(0);
    expect(membership).to.have.length(directories.length);
    const names = await Promise.all(directories.map((directory) => readdir(directory)));
    const limited = names.flatMap((files, at) =>
      files
        .filter((file) => file === 'memory.max' || file === 'memory.limit_in_bytes')
        .map((file) => `${directories[at] ?? ''}/${file}`),
    );
    expect(limited).to.have.length(1);
    expect(Number(await readFile(limited[0] ?? '', 'utf8'))).to.equal((192 + 256 + 2) * 1024 * 1024);
    await vm.plugNic(ctx, '02:00:00:00:00:09');
    await vms.destroyGone(ctx, sandboxId);
    await vm.exited;
    expect(await cgroupsNamed(sandboxId, `${parent}/pod1`)).to.deep.equal([]);
    expect(await rejection(stat(vm.netnsPath))).to.have.property('code', 'ENOENT');
    expect(await readdir(`${harness.settings.runDir}/vm`)).to.deep.equal([]);
    for (const directory of await cgroupsNamed('', `${parent}/pod1`)) expect(directory).to.equal('nothing');
    await systemExec.run(ctx, 'find', ['/sys/fs/cgroup', '-depth', '-path', `*${parent}/pod1`, '-delete']);
  });

  it('goes on with a VM after a restart and sees its end', async () => {
    const [first, sandboxId] = [manager(), newId()];
    const vm = await first.acquire(ctx, { sandboxId, shape, domain: 'default', cgroupParent: '' });
    await first.release();
    const again = await manager().adopt(ctx, sandboxId);
    expect(again?.record).to.deep.equal(vm.record);
    harness.killProcess(vm.record.pid);
    await again?.exited;
    expect(await manager().adopt(ctx, sandboxId)).to.equal(undefined);
  });

  it('leaves nothing of a VM whose process does not start', async () => {
    const failing: VmDriver = Object.assign(Object.create(harness.driver) as VmDriver, {
      start: () => Promise.reject(new HerkosError('Internal', 'no')),
      probe: (probeCtx: typeof ctx) => harness.driver.probe(probeCtx),
      destroyGone: (goneCtx: typeof ctx, record: VmRecord) => harness.driver.destroyGone(goneCtx, record),
      list: () => harness.driver.list(ctx),
    });
    const sandboxId = newId();
    const error = await rejection(
      manager(failing).acquire(ctx, { sandboxId, shape, domain: 'default', cgroupParent: '' }),
    );
    expect(error).to.have.property('message', 'no');
    expect(await cgroupsNamed(sandboxId, parent)).to.deep.equal([]);
    expect(await readdir('/run/netns')).not.to.include(`${harness.settings.instance}-${sandboxId}`);
    expect(await manager().sweep(ctx, new Set())).to.deep.equal(nothing);
  });

  it('sweeps the VM of a daemon that is gone, and says what it found', async () => {
    const sandboxId = newId();
    const vm = await manager().acquire(ctx, { sandboxId, shape, domain: 'default', cgroupParent: '' });
    expect(await manager().sweep(ctx, new Set([sandboxId]))).to.deep.equal(nothing);
    expect((await manager().sweep(ctx, new Set())).removed).to.have.length(1);
    await vm.exited;
    expect(await manager().sweep(ctx, new Set())).to.deep.equal(nothing);
  });
});

describe('the proof of KVM on this machine', () => {
  let harness: QemuHarness;

  afterEach(async () => {
    await harness.cleanUp();
  });

  it('comes to a verdict by booting, remembers it, and leaves nothing behind', async () => {
    harness = await qemuHarness({ accel: 'auto' });
    const verdict = await harness.driver.probe(ctx);
    expect(verdict.why).to.match(/KVM|kvm/);
    expect(await harness.driver.list(ctx)).to.deep.equal([]);
    const present = await stat('/dev/kvm').then(
      () => true,
      () => false,
    );
    if (!present) {
      expect(verdict.accelerator).to.equal('tcg');
      return;
    }
    const memory = JSON.parse(
      await readFile(join(harness.settings.stateDir, 'accelerator.json'), 'utf8'),
    ) as {
      readonly works: boolean;
    };
    expect(memory.works).to.equal(verdict.accelerator === 'kvm');
    expect(await harness.restartedDriver().probe(ctx)).to.deep.equal(verdict);
  });
});
