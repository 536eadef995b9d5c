import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { Gate } from '../../../lib/base/gate.js';
import { newId } from '../../../lib/base/ids.js';
import type { VmRequest } from '../../../lib/pod/ports.js';
import type { VmManager } from '../../../lib/vm/manager.js';
import { FakeVmNode } from '../../fakes/vm-node.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();
const poolSize = 2;

describe('the pool', () => {
  let directory: string;
  let node: FakeVmNode;
  let vms: VmManager;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hk-pool-'));
    node = new FakeVmNode(directory, { pool: poolSize });
    vms = node.manager();
  });

  afterEach(async () => {
    await vms.release();
    await rm(directory, { recursive: true, force: true });
  });

  const request = (domain = 'default'): VmRequest => ({
    sandboxId: newId(),
    shape: { vcpus: 1, memoryMib: 128 },
    domain,
    cgroupParent: '/kubepods/pod1',
  });
  const filled = async (length = poolSize): Promise<void> => {
    await eventually(() => Promise.resolve(vms.pool.length === length));
  };

  it('keeps stopped clones, gives them to pods in their own cgroup, and is filled again', async () => {
    await vms.warmUp(ctx);
    await filled();
    expect([...node.host.processes.values()].map(({ paused }) => paused)).to.deep.equal([true, true]);
    const wanted = request();
    const vm = await vms.acquire(ctx, wanted);
    expect(vm.record).to.include({ source: 'pool', sandboxId: wanted.sandboxId });
    expect(vm.record.id).not.to.equal(wanted.sandboxId);
    // Its pod lets it go on, once it calls it.
    expect(node.host.living(vm.record.id)?.paused).to.equal(true);
    expect(node.cgroups).to.include(`/kubepods/pod1/${vm.record.id}`);
    expect(node.cgroups).not.to.include(`/${vm.record.id}`);
    await filled();
    await vms.destroyGone(ctx, wanted.sandboxId);
    await vms.release();
    expect(node.left()).to.deep.equal([]);
  });

  it('is not filled while pods wait for their VMs', async () => {
    let finish: () => void = () => undefined;
    const busy = vms.pool.foreground(
      () =>
        new Promise<void>((resolve) => {
          finish = resolve;
        }),
    );
    await vms.warmUp(ctx);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(vms.pool.length).to.equal(0);
    finish();
    await busy;
    await filled();
  });

  it('has VMs of the asked domain only', async () => {
    await vms.warmUp(ctx);
    await filled();
    const other = await vms.acquire(ctx, request('other'));
    expect(other.record).to.include({ source: 'clone', domain: 'other' });
    await vms.destroyGone(ctx, other.record.sandboxId);
  });

  it('is emptied when the node has no memory left', async () => {
    vms = node.manager({ ...node.settings, pool: { ...node.settings.pool, memoryReserveBytes: 1000 } });
    await vms.warmUp(ctx);
    await filled();
    node.availableBytes = 999;
    const vm = await vms.acquire(ctx, request());
    await filled(0);
    await vms.destroyGone(ctx, vm.record.sandboxId);
    await eventually(() => Promise.resolve(node.left().length === 0));
  });

  it('has no more VMs than may use memory together', async () => {
    node.bytesUsed = 100;
    vms = node.manager({ ...node.settings, pool: { ...node.settings.pool, memoryBytesMax: 199 } });
    await vms.warmUp(ctx);
    await filled(1);
    // Filling has come to its end: the next one would be the third.
    await vms.acquire(ctx, request());
    await filled(1);
  });

  it('makes ready with the least share of the processors, which a pod then has like any other', async () => {
    await vms.warmUp(ctx);
    await filled();
    const [id = ''] = node.host.processes.keys();
    expect(node.limits.get(id)).to.have.property('cpuShares', 2);
    const vm = await vms.acquire(ctx, { ...request(), cgroupParent: '' });
    expect(node.limits.get(vm.record.id)).to.have.property('cpuShares', 'default');
  });

  it('is filled with one kind though another cannot be had', async () => {
    node.rehearse = (_, path) => {
      const id = [...node.records.keys()].find((one) => path.includes(one)) ?? '';
      const isBroken = node.records.get(id)?.domain === 'broken';
      return isBroken ? Promise.reject(new Error('a broken guest')) : Promise.resolve();
    };
    expect((await vms.acquire(ctx, request('broken'))).record.source).to.equal('cold');
    vms.pool.want(await vms.want(ctx, 'broken'));
    vms.pool.want(await vms.want(ctx, 'default'));
    await filled();
    expect(vms.pool.report().map(({ domain, ready }) => [domain, ready])).to.deep.equal([
      ['broken', 0],
      ['default', poolSize],
    ]);
  });

  it('blames no template for what else goes wrong while it is filled', async () => {
    await vms.templates.build(ctx, await vms.want(ctx, 'default'));
    node.failNetns = new HerkosError('Internal', 'no namespace today');
    vms.pool.want(await vms.want(ctx, 'default'));
    await eventually(() => node.failNetns === undefined);
    await vms.acquire(ctx, request());
    await filled();
    expect(node.rehearsals).to.equal(1 + poolSize);
    expect(await vms.templates.list()).to.have.length(1);
  });

  it('gives no VM of a hypervisor or guest that was replaced since', async () => {
    await vms.warmUp(ctx);
    await filled();
    node.driver.machine = 'machine 2';
    const vm = await vms.acquire(ctx, request());
    expect(vm.record.source).to.equal('clone');
    await filled();
    expect((await vms.acquire(ctx, request())).record.template).to.deep.equal(vm.record.template);
  });

  it('leaves a pod the VM that it takes while others are dropped', async () => {
    vms = node.manager({ ...node.settings, pool: { ...node.settings.pool, idleMsMax: 50 } });
    await vms.warmUp(ctx);
    await filled();
    const destroy = node.driver.destroyGone.bind(node.driver);
    const [begun, goOn] = [new Gate(), new Gate()];
    node.driver.destroyGone = async (step, record) => {
      begun.open();
      await goOn.opened;
      await destroy(step, record);
    };
    await wait(60);
    // Another kind is wanted: then all are looked at.
    vms.pool.want(await vms.want(ctx, 'other'));
    await begun.opened;
    const wanted = request();
    const vm = await vms.acquire(ctx, wanted);
    goOn.open();
    await eventually(() => node.host.processes.size === 1);
    expect(node.records.get(vm.record.id)).to.include({ sandboxId: wanted.sandboxId });
    expect(node.host.living(vm.record.id)).not.to.equal(undefined);
  });

  it('forgets a VM that ended while it waited', async () => {
    await vms.warmUp(ctx);
    await filled();
    const [first] = [...node.host.processes.values()];
    first?.end('SIGKILL');
    await filled(poolSize - 1);
    const vm = await vms.acquire(ctx, request());
    expect(vm.record.source).to.equal('pool');
    expect(vm.record.pid).not.to.equal(first?.pid);
    await vms.destroyGone(ctx, vm.record.sandboxId);
  });

  it('of a daemon that died is swept, except what a pod has got', async () => {
    await vms.warmUp(ctx);
    await filled();
    const wanted = request();
    await vms.acquire(ctx, wanted);
    await filled();
    const next = node.manager();
    await next.sweep(ctx, new Set([wanted.sandboxId]));
    expect(node.sources()).to.deep.equal(['pool']);
    expect((await next.adopt(ctx, wanted.sandboxId))?.record.sandboxId).to.equal(wanted.sandboxId);
    await next.destroyGone(ctx, wanted.sandboxId);
    expect(node.left()).to.deep.equal([]);
  });

  it('does not give a VM of a template that is not used any more', async () => {
    await vms.warmUp(ctx);
    await filled();
    const [old] = await vms.templates.list();
    await vms.templates.rotate(ctx, await vms.want(ctx, 'default'));
    const vm = await vms.acquire(ctx, request());
    expect(vm.record.template?.id).not.to.equal(old?.template.id);
    await vms.destroyGone(ctx, vm.record.sandboxId);
  });
});
