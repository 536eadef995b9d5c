import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import { rejection } from '../../tools/rejection.js';
import type { Setting } from './setting.js';

const ctx = background();

export function layerTests(setting: () => Setting): void {
  it('plugs layers in order and shares them between owners', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const [a, b, c] = [await harness.newLayer(), await harness.newLayer(), await harness.newLayer()];
    const first = await vm.plugLayers(ctx, newId(), [a, b]);
    expect(new Set(first.map((locator) => JSON.stringify(locator)))).to.have.property('size', 2);
    const second = await vm.plugLayers(ctx, newId(), [b, c, a]);
    expect([second[2], second[0]]).to.deep.equal(first);
    expect(first).not.to.deep.include(second[1]);
  });

  it('plugs more layers than fit behind one port, each once', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const layers = await Promise.all(Array.from({ length: 10 }, () => harness.newLayer()));
    const owner = newId();
    const locators = await vm.plugLayers(ctx, owner, layers);
    expect(new Set(locators.map((locator) => JSON.stringify(locator)))).to.have.property('size', 10);
    expect(await vm.plugLayers(ctx, owner, layers)).to.deep.equal(locators);
  });

  it('keeps the layers of one owner when another one goes', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const layer = await harness.newLayer();
    const [one, other] = [newId(), newId()];
    const locators = await vm.plugLayers(ctx, one, [layer]);
    await vm.plugLayers(ctx, other, [layer]);
    await vm.unplugGone(ctx, one);
    expect(await vm.plugLayers(ctx, other, [layer])).to.deep.equal(locators);
  });

  it('refuses files that no guest could map, and goes on', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const odd = await harness.newLayer(3 * 1024 * 1024);
    const lying = await harness.newLayer(2 * 1024 * 1024, 4 * 1024 * 1024);
    const missing = { ...(await harness.newLayer()), key: 'missing', path: '/nowhere/layer' };
    for (const bad of [odd, lying])
      expect(await rejection(vm.plugLayers(ctx, newId(), [bad]))).to.have.property(
        'class',
        'FailedPrecondition',
      );
    const good = await harness.newLayer();
    const error = await rejection(vm.plugLayers(ctx, newId(), [good, missing]));
    expect(error).to.have.property('class', 'NotFound');
    await vm.plugLayers(ctx, newId(), [good]);
  });
}

export function diskTests(setting: () => Setting): void {
  it('plugs a disk for one owner only', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const [owner, disk] = [newId(), await harness.newDisk()];
    const locator = await vm.plugDisk(ctx, owner, disk);
    expect(await vm.plugDisk(ctx, owner, disk)).to.deep.equal(locator);
    const error = await rejection(vm.plugDisk(ctx, newId(), disk));
    expect(error).to.have.property('class', 'FailedPrecondition');
    const missing = await rejection(vm.plugDisk(ctx, owner, `${disk}.missing`));
    expect(missing).to.have.property('class', 'NotFound');
  });

  it('uses the place of an unplugged disk again', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    await harness.guestUp(vm);
    const disk = await harness.newDisk();
    const places: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      const owner = newId();
      places.push(JSON.stringify(await vm.plugDisk(ctx, owner, disk)));
      await vm.unplugGone(ctx, owner);
      await vm.unplugGone(ctx, owner);
    }
    expect(new Set(places)).to.have.property('size', 1);
  });

  it('says so when every place is taken', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    for (let port = 0; port < harness.portCount; port += 1)
      await vm.plugDisk(ctx, newId(), await harness.newDisk());
    const error = await rejection(vm.plugDisk(ctx, newId(), await harness.newDisk()));
    expect(error).to.have.property('class', 'ResourceExhausted');
  });
}

export function serialPortTests(setting: () => Setting): void {
  it('plugs a serial port for one owner and one socket, more than once', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const [owner, path] = [newId(), harness.newSocketPath()];
    await vm.plugPort(ctx, owner, 'share.0', path);
    await vm.plugPort(ctx, owner, 'share.0', path);
    for (const other of [
      vm.plugPort(ctx, newId(), 'share.0', path),
      vm.plugPort(ctx, owner, 'share.0', harness.newSocketPath()),
    ])
      expect(await rejection(other)).to.have.property('class', 'FailedPrecondition');
    await vm.unplugGone(ctx, owner);
    await vm.plugPort(ctx, newId(), 'share.0', path);
  });

  it('refuses names and paths that cannot be, and the agent’s own', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    const path = harness.newSocketPath();
    const names = ['', '.', '../a', 'a b', 'a,b=c', 'a\0', 'ü', 'x'.repeat(65), 'herkos.agent.0'];
    for (const name of names)
      expect(await rejection(vm.plugPort(ctx, newId(), name, path)), name).to.have.property(
        'class',
        'InvalidArgument',
      );
    for (const bad of ['', 'relative', `/${'x'.repeat(107)}`, '/a\0b'])
      expect(await rejection(vm.plugPort(ctx, newId(), 'share.0', bad)), bad).to.have.property(
        'class',
        'InvalidArgument',
      );
    await vm.plugPort(ctx, newId(), 'share.0', path);
  });

  it('says so when every serial port is taken, and uses them again', async () => {
    const { harness, start } = setting();
    const { vm } = await start();
    for (let round = 0; round < 2; round += 1) {
      const owner = newId();
      for (let port = 0; port < harness.serialPortCount; port += 1)
        await vm.plugPort(ctx, owner, `share.${String(port)}`, harness.newSocketPath());
      const error = await rejection(vm.plugPort(ctx, owner, 'one.more', harness.newSocketPath()));
      expect(error).to.have.property('class', 'ResourceExhausted');
      await vm.unplugGone(ctx, owner);
    }
  });
}
