import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { newId } from '../../../lib/base/ids.js';
import type { VmRequest } from '../../../lib/pod/ports.js';
import type { VmManager } from '../../../lib/vm/manager.js';
import { FakeVmNode } from '../../fakes/vm-node.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();

function request(domain = 'default'): VmRequest {
  const shape = { vcpus: 1, memoryMib: 128 };
  return { sandboxId: newId(), shape, domain, cgroupParent: '/kubepods/pod1' };
}

describe('what the VM room tells', () => {
  let directory: string;
  let node: FakeVmNode;
  let vms: VmManager;

  const begin = (more: { pool?: number } = {}): void => {
    node = new FakeVmNode(directory, more);
    vms = node.manager();
  };

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hk-observer-'));
    begin();
  });

  afterEach(async () => {
    await vms.release();
    await rm(directory, { recursive: true, force: true });
  });

  it('is one build for many pods, and one after it had failed', async () => {
    node.rehearse = () => Promise.reject(new HerkosError('Internal', 'the guest is broken'));
    await Promise.all([vms.acquire(ctx, request()), vms.acquire(ctx, request())]);
    expect(node.observer.told).to.deep.equal(['template not built default']);
    node.rehearse = () => Promise.resolve();
    await vms.templates.build(ctx, await vms.want(ctx, 'default'));
    await Promise.all([vms.acquire(ctx, request()), vms.acquire(ctx, request('other'))]);
    expect(node.observer.told.slice(1)).to.deep.equal(['template built default', 'template built other']);
  });

  it('is nothing of a build that the end of the daemon cut short', async () => {
    let begun: () => void = () => undefined;
    const hasBegun = new Promise<void>((resolve) => {
      begun = resolve;
    });
    node.rehearse = (inner) =>
      new Promise((_, reject) => {
        inner.signal.addEventListener('abort', () => {
          reject(new Error('aborted'));
        });
        begun();
      });
    const warm = vms.warmUp(ctx);
    await hasBegun;
    await vms.release();
    await warm;
    expect(node.observer.told).to.deep.equal([]);
  });

  it('is the template that is refused when a clone of it does not come up, and the pod that boots', async () => {
    const wanted = request();
    await vms.acquire(ctx, wanted);
    await vms.replaceCold(ctx, wanted.sandboxId, 'its agent did not answer');
    expect(node.observer.told.slice(1)).to.deep.equal(['template refused default', 'clone replaced default']);
  });

  it('is what becomes of the pool: filled, taken, missed, stale, ended, given up', async function () {
    // It is filled a second after a pod has asked.
    this.timeout(30_000);
    begin({ pool: 2 });
    const { observer } = node;
    await vms.warmUp(ctx);
    await eventually(() => vms.pool.length === 2);
    expect(observer.count('pool filled default')).to.equal(2);
    expect(vms.pool.report()).to.deep.equal([{ domain: 'default', ready: 2, target: 2 }]);
    const [first] = [...node.host.processes.values()];
    first?.end('SIGKILL');
    await eventually(() => vms.pool.length === 1);
    expect(observer.told.at(-1)).to.equal('pool dropped default ended');
    await vms.acquire(ctx, request());
    expect(observer.told.at(-1)).to.equal('pool hit default');
    await vms.acquire(ctx, request());
    expect(observer.count('pool missed default')).to.equal(1);
    await eventually(() => vms.pool.length === 2);
    expect(observer.count('pool filled default')).to.equal(4);
    await vms.templates.rotate(ctx, await vms.want(ctx, 'default'));
    await vms.acquire(ctx, request());
    expect(observer.count('pool dropped default stale')).to.equal(2);
    await eventually(() => vms.pool.length === 2);
    await vms.release();
    expect(observer.count('pool dropped default shutdown')).to.equal(2);
    expect(observer.count('pool not filled')).to.equal(0);
  });

  it('is nothing about a pool that there is not', async () => {
    await vms.acquire(ctx, request());
    expect(node.observer.count('pool')).to.equal(0);
    expect(vms.pool.report()).to.deep.equal([]);
  });

  it('is a pool that memory was too short for', async () => {
    begin({ pool: 1 });
    vms = node.manager({ ...node.settings, pool: { ...node.settings.pool, memoryReserveBytes: 1000 } });
    await vms.warmUp(ctx);
    await eventually(() => vms.pool.length === 1);
    node.availableBytes = 999;
    await vms.acquire(ctx, request('other'));
    await eventually(() => node.observer.count('pool dropped default memory') === 1);
  });
});
