/** The size of a pod's VM over its life, and limits that change. */
import { expect } from 'chai';
import fc from 'fast-check';

import { background, withCancel } from '../../../lib/base/context.js';
import { MIB } from '../../../lib/base/units.js';
import type { LinuxResources } from '../../../lib/model/resources.js';
import type { VmShape } from '../../../lib/model/vm.js';
import { limitsOf } from '../../../lib/pod/spec/resources.js';
import { sizeFor } from '../../../lib/vm/sizing.js';
import { containerConfig, sandboxConfig } from '../../fakes/pod-configs.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';
import type { FakeVm } from '../../fakes/pod-world.js';
import { Incarnation, testSizing } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();
const base: VmShape = { vcpus: 1, memoryMib: 256 };

function limits(mib: number, cpus = 1): LinuxResources {
  return { memoryLimitBytes: mib * MIB, cpuQuotaUs: cpus * 100_000, cpuPeriodUs: 100_000 };
}

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
      /the pod asks for 8192 MiB.*at most 8 vCPUs/,
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
    await becomes(h.world.vm(id), base);
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
    h.world.vm(id).keepsMib = 900;
    await h.pods.updateContainer(ctx, container, { memoryLimitBytes: 200 * MIB });
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 296 });
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
    await h.pods.updateSandbox(ctx, id, { resources: limits(1024, 2), overhead: limits(200) });
    expect(h.world.vm(id).size).to.deep.equal({ vcpus: 2, memoryMib: 1224 });
    expect(h.world.sandboxes.get(id)?.config.resources).to.deep.equal(limits(1024, 2));
    await h.pods.updateSandbox(ctx, id, { resources: limits(512) });
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 712 });
    await expectClass(h.pods.updateSandbox(ctx, id, { resources: limits(8192) }), 'ResourceExhausted');
    expect(h.pods.sandbox(id).config).to.deep.include({ resources: limits(512), overhead: limits(200) });
    h.daemon.fail('sandbox.put');
    await expectClass(h.pods.updateSandbox(ctx, id, { resources: limits(1024) }), 'Internal');
    await becomes(h.world.vm(id), { vcpus: 1, memoryMib: 712 });
    await expectClass(h.pods.updateSandbox(ctx, 'f'.repeat(64), {}), 'NotFound');
    await h.pods.stopSandbox(ctx, id);
    await expectClass(h.pods.updateSandbox(ctx, id, {}), 'FailedPrecondition');
  });
});

describe('the size of a VM after anything', () => {
  const calls = ['resize', 'guest.onlineCpus', 'guest.updateContainer', 'container.put', 'plugDisk'];
  const failures = fc.record({
    call: fc.constantFrom(...calls),
    kind: fc.constantFrom('before' as const, 'after' as const),
    skip: fc.nat(2),
  });
  const action = fc.record({
    verb: fc.constantFrom('create' as const, 'update' as const, 'remove' as const, 'stop' as const),
    mib: fc.integer({ min: 1, max: 900 }),
    cpus: fc.integer({ min: 1, max: 3 }),
    which: fc.nat(9),
    failure: fc.option(failures, { freq: 3 }),
  });
  type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

  async function perform(
    h: PodHarness,
    sandbox: string,
    { verb, mib, cpus, which, failure }: Action,
  ): Promise<void> {
    if (failure !== null) h.daemon.fail(failure.call, failure.kind, failure.skip);
    const id = h.pods.containers()[which]?.id;
    if (verb === 'create') await h.start(sandbox, 'sleep', { resources: limits(mib, cpus) });
    else if (id === undefined) return;
    else if (verb === 'update') await h.pods.updateContainer(ctx, id, limits(mib, cpus));
    else if (verb === 'remove') await h.pods.removeContainer(ctx, id);
    else await h.pods.stopContainer(ctx, id, 0);
  }

  it('is what the records ask for, and limits are what they say', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(action, { maxLength: 4 }), { maxLength: 5 }), async (rounds) => {
        const h = await PodHarness.create();
        try {
          const sandbox = await h.run();
          for (const round of rounds) await Promise.allSettled(round.map((one) => perform(h, sandbox, one)));
          h.daemon.healthy();
          for (const one of h.pods.containers())
            if (one.changingTo !== undefined && one.phase !== 'exited')
              await h.pods.updateContainer(ctx, one.id, {});
          // Whatever failed, the next one that succeeds brings it all in order.
          const last = await h.create(sandbox, 'sleep', { resources: limits(1) });
          await h.pods.updateContainer(ctx, last, limits(2));
          await expectInOrder(h, sandbox);
        } finally {
          await h.close();
        }
      }),
      { numRuns: 60 },
    );
  });

  async function expectInOrder(h: PodHarness, sandbox: string): Promise<void> {
    const vm = h.world.vm(sandbox);
    const living = h.pods.containers().filter(({ phase }) => phase !== 'exited');
    const demand = living.map(({ config }) => ({ name: config.metadata.name, resources: config.resources }));
    const wanted = sizeFor(testSizing, { containers: demand });
    const memoryMib = Math.max(base.memoryMib, wanted.memoryMib);
    await eventually(() => vm.size.memoryMib === memoryMib && vm.size.vcpus === wanted.vcpus);
    await eventually(() => vm.guest.cpus === wanted.vcpus);
    for (const { id, config } of living) {
      expect(h.world.containers.get(id)).not.to.have.property('changingTo');
      const { memory, cpu } = vm.guest.container(id).limits;
      expect({ memory, cpu }).to.deep.include(limitsOf(config.resources));
    }
  }
});

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
    expect(h.daemon.calls.slice(middle)).to.deep.equal([
      'container.put',
      'guest.updateContainer',
      'container.put',
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
    await eventually(() => vm.size.memoryMib === base.memoryMib);
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
