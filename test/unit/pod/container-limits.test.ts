/** Limits of a container that change while it lives. */
import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { MIB } from '../../../lib/base/units.js';
import type { LinuxResources } from '../../../lib/model/resources.js';
import { limits } from '../../fakes/pod-configs.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';
import type { FakeVm } from '../../fakes/pod-world.js';
import { Incarnation } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();
const baseMib = 256;

describe('limits of a container', () => {
  let h: PodHarness;

  beforeEach(async () => {
    h = await PodHarness.create();
  });

  afterEach(async () => {
    await h.close();
  });

  const started = async (resources: LinuxResources): Promise<{ id: string; sandbox: string; vm: FakeVm }> => {
    const sandbox = await h.run();
    const id = await h.start(sandbox, 'sleep', { resources });
    return { id, sandbox, vm: h.world.vm(sandbox) };
  };
  const resourcesOf = (id: string): LinuxResources => h.pods.container(id).config.resources;
  const counted = (call: string): number => h.daemon.calls.filter((name) => name === call).length;

  it('grow after the VM, and shrink before it', async () => {
    const { id, vm } = await started(limits(512));
    const from = h.daemon.calls.length;
    await h.pods.updateContainer(ctx, id, limits(1024, 2));
    expect(h.daemon.calls.slice(from)).to.deep.equal([
      'container.put',
      'resize',
      'guest.onlineCpus',
      'guest.updateContainer',
      'container.put',
    ]);
    expect(vm.size).to.deep.equal({ vcpus: 2, memoryMib: 1120 });
    expect(vm.guest.container(id).limits).to.deep.include({ memory: { limit: 1024 * MIB } });
    expect(resourcesOf(id)).to.deep.equal(limits(1024, 2));
    expect(h.world.containers.get(id)).not.to.have.property('changingTo');

    const middle = h.daemon.calls.length;
    await h.pods.updateContainer(ctx, id, limits(300, 1));
    await eventually(() => vm.size.memoryMib === 396 && vm.size.vcpus === 1);
    expect(h.daemon.calls.slice(middle, middle + 6)).to.deep.equal([
      'container.put',
      'guest.updateContainer',
      'container.put',
      'size',
      'guest.memory',
      'resize',
    ]);
  });

  it('stay when they are not named', async () => {
    const before = { ...limits(512), cpuShares: 100, oomScoreAdj: 5, unified: { 'memory.high': '1' } };
    const { id, vm } = await started(before);
    await h.pods.updateContainer(ctx, id, {
      cpuQuotaUs: 50_000,
      oomScoreAdj: 9,
      unified: { 'pids.max': '7' },
    });
    expect(resourcesOf(id)).to.deep.equal({
      ...before,
      cpuQuotaUs: 50_000,
      unified: { 'memory.high': '1', 'pids.max': '7' },
    });
    expect(vm.guest.container(id).limits.cpu).to.deep.equal({ shares: 100, quota: 50_000, period: 100_000 });
    await h.pods.updateContainer(ctx, id, { cpuQuotaUs: -1 });
    expect(vm.guest.container(id).limits.cpu).to.include({ quota: -1 });
  });

  it('on memory can be taken away, and swap with it', async () => {
    const { id, vm } = await started({ memoryLimitBytes: 512 * MIB, memorySwapLimitBytes: 512 * MIB });
    await h.pods.updateContainer(ctx, id, { memoryLimitBytes: -1 });
    expect(vm.guest.container(id).limits.memory).to.deep.equal({ limit: -1, swap: -1 });
    await eventually(() => vm.size.memoryMib === baseMib);
    await h.pods.updateContainer(ctx, id, { memoryLimitBytes: 600 * MIB });
    expect(vm.guest.container(id).limits.memory).to.include({ limit: 600 * MIB });
  });

  it('keep the swap that there was when the memory changes', async () => {
    const { id, vm } = await started({ memoryLimitBytes: 512 * MIB, memorySwapLimitBytes: 512 * MIB });
    await h.pods.updateContainer(ctx, id, { memoryLimitBytes: 600 * MIB });
    expect(vm.guest.container(id).limits.memory).to.deep.equal({ limit: 600 * MIB, swap: 600 * MIB });
    await h.pods.updateContainer(ctx, id, { memoryLimitBytes: 400 * MIB });
    expect(resourcesOf(id).memorySwapLimitBytes).to.equal(400 * MIB);
  });

  it('that the guest does not have are remembered, without asking it', async () => {
    const { id } = await started(limits(512));
    await h.pods.updateContainer(ctx, id, { cpusetCpus: '3-5' });
    await h.pods.updateContainer(ctx, id, { cpusetCpus: '3-5' });
    expect(resourcesOf(id).cpusetCpus).to.equal('3-5');
    expect(counted('guest.updateContainer')).to.equal(0);
  });

  for (const call of ['guest.updateContainer', 'resize', 'guest.onlineCpus', 'container.put'])
    for (const kind of ['before', 'after'] as const)
      it(`are the former ones when ${call} fails (${kind})`, async () => {
        const { id, vm } = await started(limits(512));
        // Of the two writes, the second: the guest has the new limits then.
        h.daemon.fail(call, kind, call === 'container.put' ? 1 : 0);
        await expectClass(h.pods.updateContainer(ctx, id, limits(1024, 2)), 'Internal', /injected/);
        await eventually(() => vm.size.memoryMib === 608 && vm.size.vcpus === 1);
        expect(resourcesOf(id)).to.deep.equal(limits(512));
        expect(h.world.containers.get(id)?.config.resources).to.deep.equal(limits(512));
        expect(h.world.containers.get(id)).not.to.have.property('changingTo');
        expect(vm.guest.container(id).limits.memory).to.deep.equal({ limit: 512 * MIB });
        expect(vm.guest.container(id).limits.cpu).to.include({ quota: 100_000 });
      });

  it('that came anew are taken away again', async () => {
    const { id, vm } = await started({});
    h.daemon.fail('guest.updateContainer', 'after');
    await expectClass(h.pods.updateContainer(ctx, id, { ...limits(512, 1), cpuShares: 7 }), 'Internal');
    expect(vm.guest.container(id).limits).to.deep.include({
      memory: { limit: -1 },
      cpu: { shares: 1024, quota: -1, period: 100_000 },
    });
  });

  it('that the guest alone knows leave nothing to restore', async () => {
    const { id } = await started({});
    h.daemon.fail('guest.updateContainer', 'before');
    await expectClass(h.pods.updateContainer(ctx, id, { unified: { 'pids.max': '7' } }), 'Internal');
    expect(h.world.containers.get(id)).not.to.have.property('changingTo');
    expect(resourcesOf(id)).to.deep.equal({});
  });

  it('that could not be restored are with the next change', async () => {
    const { id, vm } = await started({});
    h.daemon.fail('container.put', 'before', 1);
    h.daemon.fail('guest.updateContainer', 'before', 1);
    await expectClass(h.pods.updateContainer(ctx, id, limits(1024)), 'Internal');
    expect(vm.guest.container(id).limits).to.deep.include({ memory: { limit: 1024 * MIB } });
    await h.pods.updateContainer(ctx, id, { cpuShares: 9 });
    expect(vm.guest.container(id).limits).to.deep.include({
      memory: { limit: -1 },
      cpu: { shares: 9, quota: -1, period: 100_000 },
    });
    expect(h.world.containers.get(id)).not.to.have.property('changingTo');
    await eventually(() => vm.size.memoryMib === baseMib);
  });

  it('that could not be restored are restored by the next daemon', async () => {
    const { id, sandbox, vm } = await started(limits(512));
    h.daemon.fail('container.put', 'before', 1);
    h.daemon.fail('guest.updateContainer', 'before', 1);
    await expectClass(h.pods.updateContainer(ctx, id, limits(1024)), 'Internal');
    expect(h.world.containers.get(id)?.changingTo).to.deep.equal(limits(1024));
    expect(vm.size.memoryMib).to.equal(1120);
    await h.daemon.kill();
    Incarnation.closeConnections(h.world);
    const second = await h.world.daemon();
    await eventually(() => h.world.vm(sandbox).size.memoryMib === 608);
    expect(vm.guest.container(id).limits.memory).to.deep.equal({ limit: 512 * MIB });
    expect(h.world.containers.get(id)).not.to.have.property('changingTo');
    await second.pods.close();
  });

  it('are restored by the next daemon for one that it was to start too', async () => {
    const sandbox = await h.run();
    const id = await h.create(sandbox, 'sleep', { resources: limits(512) });
    h.daemon.fail('resize', 'stuck');
    void h.pods.updateContainer(ctx, id, limits(1024));
    await eventually(() => h.world.containers.get(id)?.changingTo !== undefined);
    h.daemon.fail('guest.startContainer', 'stuck');
    void h.pods.startContainer(ctx, id);
    await eventually(() => counted('guest.startContainer') === 1);
    await h.daemon.kill();
    Incarnation.closeConnections(h.world);
    expect(h.world.containers.get(id)).to.include({ phase: 'starting' });
    const second = await h.world.daemon();
    expect(h.world.containers.get(id)).to.include({ phase: 'created' });
    expect(h.world.containers.get(id)).not.to.have.property('changingTo');
    await second.pods.close();
  });

  it('are refused when they cannot be', async () => {
    const { id, sandbox } = await started(limits(512));
    const puts = counted('container.put');
    for (const [change, wanted, text] of [
      [limits(8192), 'ResourceExhausted', /asks for 8192 MiB/],
      [{ cpuQuotaUs: 900_000 }, 'ResourceExhausted', /9 processors/],
      [{ unified: { '../x': '1' } }, 'InvalidArgument', /cgroup v2 file/],
      [{ hugepageLimits: [{ pageSize: '2MB', limitBytes: 1 }] }, 'Unimplemented', /huge pages/],
    ] as const)
      await expectClass(h.pods.updateContainer(ctx, id, change), wanted, text);
    expect(counted('container.put')).to.equal(puts);
    await expectClass(h.pods.updateContainer(ctx, 'f'.repeat(64), {}), 'NotFound');
    await h.pods.stopContainer(ctx, id, 0);
    await expectClass(h.pods.updateContainer(ctx, id, limits(600)), 'FailedPrecondition', /has ended/);
    await h.pods.stopSandbox(ctx, sandbox);
    await expectClass(h.pods.updateContainer(ctx, id, limits(600)), 'FailedPrecondition');
  });

  it('do not change when the caller leaves, and a stop does not wait for a hung change', async () => {
    const { id, sandbox, vm } = await started(limits(512));
    const caller = withCancel(ctx);
    h.daemon.fail('resize', 'hang');
    const left = h.pods.updateContainer(caller, id, limits(1024));
    await eventually(() => counted('resize') === 2);
    caller.cancel();
    await expectClass(left, 'Cancelled');
    expect(resourcesOf(id)).to.deep.equal(limits(512));
    await eventually(() => vm.size.memoryMib === 608);
    h.daemon.fail('guest.updateContainer', 'hang');
    const stopped = h.pods.updateContainer(ctx, id, limits(700));
    const refused = expectClass(stopped, 'FailedPrecondition', /stopping/);
    await eventually(() => counted('guest.updateContainer') === 1);
    await h.pods.stopSandbox(ctx, sandbox);
    await refused;
    expect(h.pods.container(id).phase).to.equal('exited');
  });

  it('of several containers change at once', async () => {
    const { id, sandbox, vm } = await started(limits(512));
    const other = await h.start(sandbox, 'sleep', { resources: limits(512) });
    await Promise.all([
      h.pods.updateContainer(ctx, id, limits(1000, 2)),
      h.pods.updateContainer(ctx, other, limits(200, 2)),
      h.create(sandbox, 'sleep', { resources: limits(100, 1) }),
    ]);
    await eventually(() => vm.size.memoryMib === 1396 && vm.size.vcpus === 5);
  });
});
