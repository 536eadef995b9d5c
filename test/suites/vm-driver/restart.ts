import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import { rejection } from '../../tools/rejection.js';
import { grown, recordOf } from './setting.js';
import type { Setting } from './setting.js';

const ctx = background();

export function restartTests(setting: () => Setting): void {
  it('takes a VM over after a restart, with its devices, and sees its end', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    const [owner, layer, disk] = [newId(), await harness.newLayer(), await harness.newDisk()];
    const layers = await vm.plugLayers(ctx, owner, [layer]);
    const place = await vm.plugDisk(ctx, owner, disk);
    const socketPath = harness.newSocketPath();
    await vm.plugPort(ctx, owner, 'share.0', socketPath);
    await vm.release();
    const again = await harness.restartedDriver().adopt(ctx, recordOf(spec, vm));
    if (again === undefined) throw new Error('the VM was not taken over');
    expect(again).to.include({ pid: vm.pid, processStartTicks: vm.processStartTicks });
    expect(await again.plugLayers(ctx, newId(), [layer])).to.deep.equal(layers);
    expect(await again.plugDisk(ctx, owner, disk)).to.deep.equal(place);
    await again.plugPort(ctx, owner, 'share.0', socketPath);
    const taken = await rejection(again.plugPort(ctx, newId(), 'share.0', socketPath));
    expect(taken).to.have.property('class', 'FailedPrecondition');
    harness.killProcess(again.pid);
    await again.exited;
  });

  it('knows the size of a VM that it took over, and changes it', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    await harness.guestUp(vm);
    const boot = spec.record.shape;
    const big = { vcpus: harness.vcpusMax, memoryMib: boot.memoryMib + 256 };
    expect(await grown(vm, big)).to.deep.equal(big);
    await vm.release();
    const again = await harness.restartedDriver().adopt(ctx, recordOf(spec, vm));
    if (again === undefined) throw new Error('the VM was not taken over');
    expect(await again.resize(ctx, big)).to.deep.equal(big);
    const kept = harness.vcpusLeave ? boot.vcpus : big.vcpus;
    expect(await again.resize(ctx, boot)).to.deep.equal({ ...boot, vcpus: kept });
  });

  it('finds a process whose pid was never recorded', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    await vm.release();
    const again = await harness.restartedDriver().adopt(ctx, spec.record);
    expect(again).to.have.property('pid', vm.pid);
    await again?.kill(ctx);
    await again?.exited;
  });

  it('does not take over what has ended, nor another process with the same pid', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    const record = recordOf(spec, vm);
    await vm.kill(ctx);
    await vm.exited;
    expect(await harness.restartedDriver().adopt(ctx, record)).to.equal(undefined);
    expect(await harness.restartedDriver().adopt(ctx, { ...record, pid: process.pid })).to.equal(undefined);
  });

  it('destroys a process by the record that was written before its start', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    await vm.release();
    const restarted = harness.restartedDriver();
    await restarted.destroyGone(ctx, spec.record);
    expect(await restarted.list(ctx)).not.to.include(spec.record.id);
    expect(await restarted.adopt(ctx, recordOf(spec, vm))).to.equal(undefined);
  });
}
