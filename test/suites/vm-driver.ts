/** What every `VmDriver` must do; run on the fake and on each real hypervisor. */
import { expect } from 'chai';

import { background } from '../../lib/base/context.js';
import { newId } from '../../lib/base/ids.js';
import type { LayerDevice } from '../../lib/model/image.js';
import type { VmRecord, VmShape } from '../../lib/model/vm.js';
import type { RunningVm, VmDriver, VmSpec } from '../../lib/vm/ports.js';
import { eventually } from '../tools/eventually.js';
import { rejection } from '../tools/rejection.js';

export interface VmDriverHarness {
  readonly driver: VmDriver;
  /** Devices that fit on the bus. */
  readonly portCount: number;
  readonly serialPortCount: number;
  /** What a VM can be brought to; memory on top of what it booted with. */
  readonly vcpusMax: number;
  readonly memoryMibMax: number;
  /** Whether vCPUs can be taken away again. */
  readonly vcpusLeave: boolean;
  /** A VM with everything it needs around it: namespace, tap, uid. */
  newSpec(): Promise<VmSpec>;
  /** A file of `sizeBytes` that a VM can open, with a record that says `recordedBytes`. */
  newLayer(sizeBytes?: number, recordedBytes?: number): Promise<LayerDevice>;
  newDisk(): Promise<string>;
  /** Where the socket of a serial port may be; nobody listens there. */
  newSocketPath(): string;
  /** As if the daemon had been killed and started again: a driver that knows nothing yet. */
  restartedDriver(): VmDriver;
  /** SIGKILL from outside. */
  killProcess(pid: number): void;
  /** Resolves when the guest runs, so that it can answer an unplug request. */
  guestUp(vm: RunningVm): Promise<void>;
  /** Removes whatever the tests made, VMs included. */
  cleanUp(): Promise<void>;
}

const mac = '02:00:00:00:00:07';
const ctx = background();

/** The record as it is kept once the process runs. */
function recordOf(spec: VmSpec, vm: RunningVm): VmRecord {
  return { ...spec.record, pid: vm.pid, processStartTicks: vm.processStartTicks };
}

export function vmDriverSuite(name: string, makeHarness: () => Promise<VmDriverHarness>): void {
  describe(`vm driver: ${name}`, () => {
    let harness: VmDriverHarness;
    let driver: VmDriver;

    beforeEach(async () => {
      harness = await makeHarness();
      driver = harness.driver;
    });

    afterEach(async () => {
      await harness.cleanUp();
    });

    const start = async (): Promise<{ spec: VmSpec; vm: RunningVm }> => {
      const spec = await harness.newSpec();
      return { spec, vm: await driver.start(ctx, spec) };
    };

    lifeTests(() => ({ harness, driver, start }));
    layerTests(() => ({ harness, driver, start }));
    diskTests(() => ({ harness, driver, start }));
    serialPortTests(() => ({ harness, driver, start }));
    sizeTests(() => ({ harness, driver, start }));
    restartTests(() => ({ harness, driver, start }));
  });
}

interface Setting {
  readonly harness: VmDriverHarness;
  readonly driver: VmDriver;
  readonly start: () => Promise<{ readonly spec: VmSpec; readonly vm: RunningVm }>;
}

function lifeTests(setting: () => Setting): void {
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

  it('uses a card that was plugged ahead for the first address, and only for that', async () => {
    const { driver, start } = setting();
    const { spec, vm } = await start();
    const spare = '02:00:00:00:00:99';
    await vm.plugSpareNic(ctx, spare);
    expect(await vm.plugNic(ctx, mac)).to.equal(spare);
    expect(await vm.plugNic(ctx, mac)).to.equal(spare);
    const second = '02:00:00:00:00:08';
    expect(await vm.plugNic(ctx, second)).to.equal(second);
    await driver.destroyGone(ctx, recordOf(spec, vm));
  });

  it('plugs the network card once and asks the guest to power down', async () => {
    const { start } = setting();
    const { vm } = await start();
    await vm.plugNic(ctx, mac);
    await vm.plugNic(ctx, mac);
    await vm.powerDown(ctx);
  });
}

function layerTests(setting: () => Setting): void {
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

function diskTests(setting: () => Setting): void {
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

/** Until the machine has all the vCPUs: a hypervisor may be unable to start another one just now. */
async function grown(vm: RunningVm, size: VmShape): Promise<VmShape> {
  let now = await vm.resize(ctx, size);
  await eventually(async () => {
    if (now.vcpus < size.vcpus) now = await vm.resize(ctx, size);
    return now.vcpus >= size.vcpus;
  });
  return now;
}

function serialPortTests(setting: () => Setting): void {
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

function sizeTests(setting: () => Setting): void {
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

function restartTests(setting: () => Setting): void {
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
