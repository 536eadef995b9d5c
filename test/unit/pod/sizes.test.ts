/** The size of a pod's VM over its life, and limits that change. */
import { expect } from 'chai';
import { isDeepStrictEqual } from 'node:util';

import { background } from '../../../lib/base/context.js';
import { MIB } from '../../../lib/base/units.js';
import type { LinuxResources } from '../../../lib/model/resources.js';
import type { VmShape } from '../../../lib/model/vm.js';
import { containerConfig, limits, sandboxConfig } from '../../fakes/pod-configs.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';
import type { FakeVm } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();
const base: VmShape = { vcpus: 1, memoryMib: 256 };

describe('the size of a pod’s VM', () => {
  let h: PodHarness;

  beforeEach(async () => {
    h = await PodHarness.create();
  });

  afterEach(async () => {
    await h.close();
  });

  const create = (sandbox: string, resources: LinuxResources): Promise<string> =>
    h.create(sandbox, 'sleep', { resources });
  const runWith = async (resources: LinuxResources): Promise<string> =>
    (await h.pods.runSandbox(ctx, sandboxConfig({ resources }), '')).id;
  const becomes = async (vm: FakeVm, size: VmShape): Promise<void> => {
    await eventually(() => vm.size.memoryMib === size.memoryMib && vm.size.vcpus === size.vcpus);
    await eventually(() => vm.guest.cpus === size.vcpus);
  };
  const neverByItself = async (): Promise<void> => {
    await h.close();
    h = await PodHarness.create({ sizeAgainMs: 3_600_000 });
  };
  const count = (call: string): number => h.daemon.calls.filter((name) => name === call).length;
  const timings = (id: string): string[] => h.pods.sandbox(id).timings.map(({ phase }) => phase);

  it('is what it booted with as long as that is enough, and then costs nothing', async () => {
    const id = await h.run();
    const container = await create(id, limits(100));
    await h.pods.removeContainer(ctx, container);
    expect(timings(id)).not.to.include('size');
    expect(count('resize') + count('guest.onlineCpus')).to.equal(0);
  });

  it('is brought to the pod’s limits before READY', async () => {
    const id = await runWith(limits(1024, 3));
    const vm = h.world.vm(id);
    expect(vm.size).to.deep.equal({ vcpus: 3, memoryMib: 1120 });
    expect(vm.guest.cpus).to.equal(3);
    expect(timings(id)).to.include('size');
    expect(await h.pods.describeSandbox(id)).to.deep.include({ size: vm.size });
    // Within the pod's limits a container needs nothing more.
    await create(id, limits(1024, 3));
    expect(count('resize')).to.equal(1);
  });

  it('brings processors online only when there are more', async () => {
    const id = await runWith(limits(1024, 1));
    expect([h.world.vm(id).size.memoryMib, count('guest.onlineCpus')]).to.deep.equal([1120, 0]);
  });

  it('grows before a container is created, and shrinks when it is removed', async () => {
    const id = await h.run();
    const container = await create(id, limits(512, 2));
    expect(h.world.vm(id).size).to.deep.equal({ vcpus: 2, memoryMib: 608 });
    const { calls } = h.daemon;
    expect(calls.indexOf('guest.onlineCpus')).to.be.within(
      calls.indexOf('resize'),
      calls.indexOf('guest.createContainer'),
    );
    const other = await create(id, limits(512, 1));
    expect(h.world.vm(id).size).to.deep.equal({ vcpus: 3, memoryMib: 1120 });
    await h.pods.removeContainer(ctx, container);
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 608 });
    await h.pods.removeContainer(ctx, other);
    await becomes(h.world.vm(id), base);
  });

  it('adds up what is created at once', async () => {
    const id = await h.run();
    const all = await Promise.all([1, 2, 3, 4].map((mib) => create(id, limits(100 * mib, 1.5))));
    expect(h.world.vm(id).size).to.deep.equal({ vcpus: 6, memoryMib: 1096 });
    await Promise.all(all.map((one) => h.pods.removeContainer(ctx, one)));
    await becomes(h.world.vm(id), base);
  });

  it('lets as many in at once as there is room for', async () => {
    const id = await h.run();
    const results = await Promise.allSettled([1, 2, 3].map(() => create(id, limits(1600))));
    expect(results.map(({ status }) => status).sort()).to.deep.equal(['fulfilled', 'fulfilled', 'rejected']);
    expect(h.world.vm(id).size.memoryMib).to.equal(3296);
    expect(h.pods.containers()).to.have.length(2);
  });

  it('never exceeds the node, and says who asked for too much', async () => {
    await expectClass(
      runWith(limits(8192)),
      'ResourceExhausted',
      /the pod asks for 8192 MiB.*at most 4096 MiB/,
    );
    expect(h.world.vms.size + h.world.sandboxes.size).to.equal(0);
    const id = await h.run();
    const config = containerConfig('sleep', {
      metadata: { name: 'greedy', attempt: 0 },
      resources: limits(8192),
    });
    await expectClass(
      h.pods.createContainer(ctx, id, config),
      'ResourceExhausted',
      /the container greedy asks for 8192 MiB/,
    );
    expect(count('resize')).to.equal(0);
    expect([...h.world.holds, ...h.pods.containers()]).to.deep.equal([]);
  });

  for (const call of ['guest.createContainer', 'guest.onlineCpus', 'plugDisk', 'resize'])
    it(`is given back when a creation fails at ${call}`, async () => {
      const id = await h.run();
      h.daemon.fail(call, 'after');
      await expectClass(create(id, limits(1024, 2)), 'Internal', /injected/);
      await becomes(h.world.vm(id), base);
      expect(h.pods.containers()).to.deep.equal([]);
    });

  it('is given back when the guest does not take it', async () => {
    const id = await h.run();
    h.world.vm(id).takesMib = 512;
    await expectClass(
      create(id, limits(1024)),
      'ResourceExhausted',
      /needs 1 vCPUs and 1120 MiB.*guest has taken only 1 vCPUs and 512 MiB/,
    );
    await becomes(h.world.vm(id), base);
  });

  it('does not wait for ever for a guest that does not take it', async () => {
    h.world.deadlines = { ...h.world.deadlines, sizeMs: 50, settleMs: 10 };
    const daemon = await h.world.daemon();
    const { id } = await daemon.pods.runSandbox(ctx, sandboxConfig(), '');
    daemon.fail('resize', 'stuck');
    const config = containerConfig('sleep', { resources: limits(1024) });
    await expectClass(
      daemon.pods.createContainer(ctx, id, config),
      'DeadlineExceeded',
      /growing the virtual machine to 1 vCPUs and 1120 MiB/,
    );
    await eventually(() => daemon.calls.filter((name) => name === 'resize').length === 2);
    expect(h.world.vm(id).size).to.deep.equal(base);
    daemon.fail('resize', 'hang');
    await expectClass(
      daemon.pods.runSandbox(ctx, sandboxConfig({ resources: limits(1024) }), ''),
      'DeadlineExceeded',
    );
    expect(h.world.vms.size).to.equal(1);
    await daemon.pods.close();
  });

  it('does not argue with a guest that keeps memory', async () => {
    const id = await h.run();
    const container = await create(id, limits(1024));
    const vm = h.world.vm(id);
    vm.keepsMib = 900;
    await h.pods.updateContainer(ctx, container, { memoryLimitBytes: 200 * MIB });
    await eventually(() => vm.size.memoryMib < vm.keepsMib);
    // Later it has let it go.
    vm.keepsMib = 0;
    await becomes(vm, { vcpus: 1, memoryMib: 296 });
    await h.pods.removeContainer(ctx, container);
    await becomes(vm, base);
  });

  it('is asked for again by the next who settles it, when the guest keeps memory', async () => {
    await neverByItself();
    const id = await h.run();
    const container = await create(id, limits(1024));
    const vm = h.world.vm(id);
    vm.keepsMib = 350;
    await h.pods.updateContainer(ctx, container, { memoryLimitBytes: 200 * MIB });
    await eventually(() => vm.size.memoryMib === 296);
    const asked = count('resize');
    await h.pods.updateContainer(ctx, container, { cpuShares: 5 });
    await eventually(() => count('resize') > asked);
  });

  it('is not made less by growing while it is not known', async () => {
    await neverByItself();
    const id = await h.run();
    const container = await create(id, limits(2048));
    const vm = h.world.vm(id);
    vm.usesMib = 1000;
    h.daemon.fail('resize', 'after');
    await h.pods.removeContainer(ctx, container);
    await eventually(() => vm.size.memoryMib < 2144);
    await create(id, limits(512));
    expect(vm.size.memoryMib).to.be.greaterThan(1000);
  });

  it('is no less than what the guest uses, until it uses less', async () => {
    const id = await h.run();
    const container = await create(id, limits(1024, 2));
    const vm = h.world.vm(id);
    vm.usesMib = 600;
    await h.pods.removeContainer(ctx, container);
    const asked = count('guest.memory');
    await eventually(() => count('guest.memory') > asked + 5);
    expect(vm.size.memoryMib).to.be.within(600 / 0.9, 600 / 0.9 + 4);
    expect(vm.size.vcpus).to.equal(1);
    // It is told a moment after the guest has it.
    await eventually(async () => isDeepStrictEqual((await h.pods.describeSandbox(id))['size'], vm.size));
    vm.usesMib = 100;
    await becomes(vm, base);
    const last = count('size');
    await create(id, limits(100));
    expect(count('size')).to.equal(last);
  });

  it('stays when the guest does not say what it uses', async () => {
    await neverByItself();
    const id = await h.run();
    const container = await create(id, limits(1024));
    h.daemon.fail('guest.memory');
    await h.pods.removeContainer(ctx, container);
    await eventually(() => count('guest.memory') === 1);
    const again = await create(id, limits(512));
    expect(h.world.vm(id).size.memoryMib).to.equal(1120);
    await h.pods.removeContainer(ctx, again);
    await becomes(h.world.vm(id), base);
  });

  for (const call of ['size', 'guest.memory', 'resize'])
    it(`is given back by itself when that failed at ${call} before`, async () => {
      const id = await h.run();
      const container = await create(id, limits(1024, 2));
      h.daemon.fail(call);
      h.daemon.fail(call, 'after');
      await h.pods.removeContainer(ctx, container);
      await becomes(h.world.vm(id), base);
    });

  it('grows though it is shrinking, and shrinks afterwards', async () => {
    const id = await h.run();
    const container = await create(id, limits(2048, 4));
    h.daemon.fail('resize', 'hang');
    await h.pods.removeContainer(ctx, container);
    await eventually(() => count('resize') === 2);
    // A change that would wait for the deadline of the one before it would not come to its end here.
    const other = await create(id, limits(1024, 2));
    await becomes(h.world.vm(id), { vcpus: 2, memoryMib: 1120 });
    await h.pods.removeContainer(ctx, other);
    await becomes(h.world.vm(id), base);
  });

  it('is not counted on while it may be taken back', async () => {
    const id = await h.run();
    const container = await create(id, limits(2048));
    h.daemon.fail('guest.memory', 'hang');
    await h.pods.removeContainer(ctx, container);
    await eventually(() => count('guest.memory') === 1);
    // What there is would be enough, but is about to go: a settling for fewer containers is ended, and begun anew.
    await create(id, limits(1024));
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 1120 });
  });

  it('forgets a preparing container when the next one is there', async () => {
    const id = await h.run();
    const first = await h.start(id, 'exit 0', { resources: limits(2048) });
    await eventually(() => h.pods.container(first).phase === 'exited');
    expect(h.world.vm(id).size.memoryMib).to.equal(2144);
    await create(id, limits(512));
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 608 });
  });

  it('follows the pod’s sums', async () => {
    const id = await h.run();
    await h.pods.updateSandbox(ctx, id, { resources: limits(1024, 2), overhead: limits(264) });
    expect(h.world.vm(id).size).to.deep.equal({ vcpus: 2, memoryMib: 1224 });
    expect(h.world.sandboxes.get(id)?.config.resources).to.deep.equal(limits(1024, 2));
    await h.pods.updateSandbox(ctx, id, { resources: limits(512) });
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 712 });
    await expectClass(h.pods.updateSandbox(ctx, id, { resources: limits(8192) }), 'ResourceExhausted');
    expect(h.pods.sandbox(id).config).to.deep.include({ resources: limits(512), overhead: limits(264) });
    h.daemon.fail('sandbox.put');
    await expectClass(h.pods.updateSandbox(ctx, id, { resources: limits(1024) }), 'Internal');
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 712 });
    await expectClass(h.pods.updateSandbox(ctx, 'f'.repeat(64), {}), 'NotFound');
    await h.pods.stopSandbox(ctx, id);
    await expectClass(h.pods.updateSandbox(ctx, id, {}), 'FailedPrecondition');
  });
});
