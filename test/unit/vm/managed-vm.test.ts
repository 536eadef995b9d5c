import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import type { VmRecord, VmShape } from '../../../lib/model/vm.js';
import { ManagedVm } from '../../../lib/vm/managed-vm.js';
import type { FakeProcess } from '../../fakes/vm-driver.js';
import { FakeVmDriver } from '../../fakes/vm-driver.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();
const boot: VmShape = { vcpus: 1, memoryMib: 256 };
const big: VmShape = { vcpus: 2, memoryMib: 1024 };

describe('the limits of a VM’s process', () => {
  let vm: ManagedVm;
  let process: FakeProcess;
  let adopted: () => Promise<ManagedVm>;
  const limits: VmShape[] = [];

  beforeEach(async () => {
    limits.length = 0;
    const driver = new FakeVmDriver();
    const record = recordOf(newId());
    let kept = record;
    const running = await driver.start(ctx, { record, cgroup: { procsFiles: [] }, memory: { kind: 'own' } });
    await running.resume(ctx);
    const managed = (of: typeof running): ManagedVm =>
      new ManagedVm(kept, of, {
        allow: (shapeMax) => {
          kept = { ...kept, shapeMax };
          vm.record = kept;
          return Promise.resolve();
        },
        setLimits: (_ctx, size) => {
          limits.push(size);
          return Promise.resolve();
        },
      });
    vm = managed(running);
    const living = driver.host.living(record.id);
    if (living === undefined) throw new Error('the fake has no process');
    process = living;
    adopted = async () => {
      await vm.release();
      const again = await new FakeVmDriver({ host: driver.host }).adopt(ctx, record);
      if (again === undefined) throw new Error('the fake was not taken over');
      return managed(again);
    };
  });

  it('grow before the guest does, and shrink after it', async () => {
    expect(await vm.resize(ctx, big)).to.deep.equal(big);
    await vm.resize(ctx, boot);
    expect(limits).to.deep.equal([big, big, big, boot]);
  });

  it('are never below what the guest has, and follow when it has let go', async () => {
    await vm.resize(ctx, big);
    process.deaf = true;
    limits.length = 0;
    expect(await vm.resize(ctx, boot)).to.deep.equal(big);
    expect(limits).to.deep.equal([big, big]);
    process.size = { vcpus: 1, memoryMib: 500 };
    expect(await vm.size(ctx)).to.deep.equal(process.size);
    process.deaf = false;
    await vm.resize(ctx, boot);
    expect(limits.slice(2)).to.deep.equal([{ vcpus: 1, memoryMib: 500 }, boot]);
  });

  it('are not what a new daemon takes them for', async () => {
    await vm.resize(ctx, big);
    const again = await adopted();
    process.deaf = true;
    limits.length = 0;
    await again.resize(ctx, { vcpus: 1, memoryMib: 512 });
    expect(limits).to.deep.equal([big, big]);
  });

  it('have no room for what only the process says it has (S2)', async () => {
    await vm.resize(ctx, { vcpus: 1, memoryMib: 512 });
    process.size = { vcpus: 500, memoryMib: 4 * 1024 * 1024 };
    process.deaf = true;
    limits.length = 0;
    await vm.resize(ctx, boot);
    await (await adopted()).resize(ctx, { vcpus: 2, memoryMib: 300 });
    const most = { vcpus: 1, memoryMib: 512 };
    expect(limits).to.deep.equal([most, most, { vcpus: 2, memoryMib: 512 }, { vcpus: 2, memoryMib: 512 }]);
  });

  it('do not change when the VM has ended', async () => {
    await vm.kill(ctx);
    expect(await rejection(vm.resize(ctx, big))).to.have.property('class', 'Unavailable');
    expect(limits).to.deep.equal([]);
  });
});

function recordOf(id: string): VmRecord {
  return {
    schemaVersion: 1,
    id,
    sandboxId: id,
    domain: 'default',
    driver: 'fake',
    shape: boot,
    accelerator: 'tcg',
    source: 'cold',
    uid: 1,
    netns: 'none',
    tap: 'tap0',
    cgroupParent: '',
    pid: 0,
    processStartTicks: '0',
  };
}
