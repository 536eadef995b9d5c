import { setTimeout as wait } from 'node:timers/promises';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { newId } from '../../../lib/base/ids.js';
import type { VmSpec } from '../../../lib/vm/ports.js';
import { rejection } from '../../tools/rejection.js';
import { recordOf } from './setting.js';
import type { Setting } from './setting.js';

const mac = '02:00:00:00:00:07';
const ctx = background();

export function lifeTests(setting: () => Setting): void {
  it('starts a process, lists it, and destroys it more than once', async () => {
    const { driver, start } = setting();
    const { spec, vm } = await start();
    expect(vm.pid).to.be.greaterThan(1);
    expect(vm.processStartTicks).to.match(/^[1-9]\d*$/);
    expect(await driver.list(ctx)).to.include(spec.record.id);
    const record = recordOf(spec, vm);
    await driver.destroyGone(ctx, record);
    await vm.exited;
    expect(await driver.list(ctx)).not.to.include(record.id);
    await driver.destroyGone(ctx, record);
  });

  it('destroys what was never started', async () => {
    const { driver, harness } = setting();
    await driver.destroyGone(ctx, (await harness.newSpec()).record);
  });

  it('refuses a second process for the same VM and leaves the first alone', async () => {
    const { driver, start } = setting();
    const { spec, vm } = await start();
    expect(await rejection(driver.start(ctx, spec))).to.have.property('class', 'AlreadyExists');
    await vm.plugNic(ctx, mac);
  });

  it('tells of its process, and keeps none that could not be noted', async () => {
    const { driver, harness, start } = setting();
    const told: unknown[] = [];
    const onProcess: VmSpec['onProcess'] = async ({ pid, processStartTicks }) => {
      await wait(50);
      told.push({ pid, processStartTicks });
    };
    const { vm } = await start({ ...(await harness.newSpec()), onProcess });
    expect(told).to.deep.equal([{ pid: vm.pid, processStartTicks: vm.processStartTicks }]);
    await vm.kill(ctx);
    const spec = await harness.newSpec();
    const full = new HerkosError('ResourceExhausted', 'the disk is full');
    const refused = driver.start(ctx, { ...spec, onProcess: () => Promise.reject(full) });
    expect(await rejection(refused)).to.equal(full);
    expect(await driver.list(ctx)).not.to.include(spec.record.id);
  });

  it('sees the end of a process that somebody kills', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    harness.killProcess(vm.pid);
    expect(await vm.exited).to.have.property('signal', 'SIGKILL');
  });

  it('fails every call after the end, but has nothing left to unplug', async () => {
    const { start } = setting();
    const { vm } = await start();
    await vm.kill(ctx);
    await vm.exited;
    expect(await rejection(vm.plugNic(ctx, mac))).to.have.property('class', 'Unavailable');
    expect(await rejection(vm.plugLayers(ctx, newId(), []))).to.have.property('class', 'Unavailable');
    expect(await rejection(vm.powerDown(ctx))).to.have.property('class', 'Unavailable');
    await vm.unplugGone(ctx, newId());
    await vm.kill(ctx);
  });

  it('uses the card of a machine out of a template for the first address, and only for that', async () => {
    const { driver, harness, start } = setting();
    const { spec, vm } = await start(await harness.newTemplateSpec());
    const spare = vm.spareNic;
    expect(spare).to.match(/^02(:[0-9a-f]{2}){5}$/);
    await vm.release();
    const heir = await harness.restartedDriver().adopt(ctx, recordOf(spec, vm));
    if (heir === undefined) throw new Error('the VM is gone');
    expect(heir.spareNic).to.equal(spare);
    expect(await heir.plugNic(ctx, mac)).to.equal(spare);
    expect(await heir.plugNic(ctx, mac)).to.equal(spare);
    expect(heir.spareNic).to.equal(undefined);
    // Another address needs another tap, which a real machine does not have.
    const second = '02:00:00:00:00:08';
    expect(await heir.plugNic(ctx, second).catch(() => second)).to.equal(second);
    await driver.destroyGone(ctx, recordOf(spec, vm));
  });

  it('has no card waiting in a machine that boots for a pod', async () => {
    const { vm } = await setting().start();
    expect(vm.spareNic).to.equal(undefined);
    expect(await vm.plugNic(ctx, mac)).to.equal(mac);
  });

  it('plugs the network card once and asks the guest to power down', async () => {
    const { start } = setting();
    const { vm } = await start();
    await vm.plugNic(ctx, mac);
    await vm.plugNic(ctx, mac);
    await vm.powerDown(ctx);
  });
}
