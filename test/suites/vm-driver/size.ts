import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { rejection } from '../../tools/rejection.js';
import { grown } from './setting.js';
import type { Setting } from './setting.js';

const ctx = background();

export function sizeTests(setting: () => Setting): void {
  it('grows and shrinks, and never below what it booted with', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    await harness.guestUp(vm);
    const boot = spec.record.shape;
    const vcpus = harness.vcpusMax;
    const kept = harness.vcpusLeave ? boot.vcpus : vcpus;
    const big = { vcpus, memoryMib: boot.memoryMib + 512 };
    expect(await grown(vm, big)).to.deep.equal(big);
    expect(await vm.resize(ctx, big)).to.deep.equal(big);
    const less = { vcpus: boot.vcpus, memoryMib: boot.memoryMib + 64 };
    expect(await vm.resize(ctx, less)).to.deep.equal({ ...less, vcpus: kept });
    expect(await vm.resize(ctx, { vcpus: 1, memoryMib: 1 })).to.deep.equal({ ...boot, vcpus: kept });
  });

  it('can be brought to all that the machine was made for', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    await harness.guestUp(vm);
    const memoryMib = spec.record.shape.memoryMib + harness.memoryMibMax;
    const most = { vcpus: harness.vcpusMax, memoryMib };
    expect(await grown(vm, most)).to.deep.equal(most);
  });

  it('refuses sizes that make no machine, and sizes beyond it, and changes nothing', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    const boot = spec.record.shape;
    for (const odd of [0, -1, 1.5, NaN, Infinity]) {
      for (const size of [
        { vcpus: odd, memoryMib: 256 },
        { vcpus: 1, memoryMib: odd },
      ])
        expect(await rejection(vm.resize(ctx, size))).to.have.property('class', 'InvalidArgument');
    }
    for (const size of [
      { ...boot, vcpus: harness.vcpusMax + 1 },
      { vcpus: harness.vcpusMax, memoryMib: boot.memoryMib + harness.memoryMibMax + 1 },
      { vcpus: harness.vcpusMax, memoryMib: Number.MAX_SAFE_INTEGER },
    ])
      expect(await rejection(vm.resize(ctx, size))).to.have.property('class', 'ResourceExhausted');
    expect(await vm.resize(ctx, boot)).to.deep.equal(boot);
  });

  it('is not held up by a guest that neither takes memory nor gives any back', async () => {
    const { harness, start } = setting();
    const { spec, vm } = await start();
    await harness.guestUp(vm);
    const boot = spec.record.shape;
    const big = { ...boot, memoryMib: boot.memoryMib + 256 };
    await vm.pause(ctx);
    expect(await vm.resize(ctx, big)).to.deep.equal(boot);
    await vm.resume(ctx);
    // What it was not seen to take it does not take later.
    expect(await vm.resize(ctx, boot)).to.deep.equal(boot);
    expect(await vm.resize(ctx, big)).to.deep.equal(big);
    await vm.pause(ctx);
    expect(await vm.resize(ctx, boot)).to.deep.equal(big);
  });
}
