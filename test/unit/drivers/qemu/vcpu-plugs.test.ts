import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { silentLogger } from '../../../../lib/base/logger.js';
import { DeviceBook } from '../../../../lib/drivers/qemu/device-book.js';
import { Plugger } from '../../../../lib/drivers/qemu/plugger.js';
import { QmpSession } from '../../../../lib/drivers/qemu/qmp-session.js';
import { VcpuPlugs } from '../../../../lib/drivers/qemu/vcpu-plugs.js';
import { FakeMachine } from '../../../fakes/qmp-machine.js';
import { eventually } from '../../../tools/eventually.js';
import { rejection } from '../../../tools/rejection.js';

const ctx = background();

describe('vCPUs that a guest was asked for', () => {
  let machine: FakeMachine;
  let session: QmpSession;

  beforeEach(async () => {
    machine = new FakeMachine();
    await machine.qemu.listen();
    session = await QmpSession.connect(ctx, machine.qemu.path);
  });

  afterEach(async () => {
    session.destroy();
    await machine.qemu.close();
  });

  const plugs = (unplugTimeoutMs: number): VcpuPlugs => {
    const plugger = new Plugger({
      session,
      book: new DeviceBook({ portCount: 1, slotCount: 1 }),
      save: () => Promise.resolve(),
      unplugTimeoutMs,
      logger: silentLogger,
    });
    return new VcpuPlugs(plugger, {
      boot: { vcpus: 1, memoryMib: 128 },
      memoryMibMax: 0,
      vcpusLeave: true,
      emulated: false,
      unplugTimeoutMs,
    });
  };
  /** Three, of which the guest is to give two back; whoever wanted that has left. */
  const halfShrunk = async (unplugTimeoutMs: number): Promise<VcpuPlugs> => {
    const vcpus = plugs(unplugTimeoutMs);
    expect(await vcpus.resize(ctx, 3)).to.equal(3);
    machine.isDeaf = true;
    const caller = withCancel(ctx);
    const shrinking = rejection(vcpus.resize(caller, 1));
    await eventually(() => ['device_del c1', 'device_del c2'].every((one) => machine.asked.includes(one)));
    caller.cancel();
    expect(await shrinking).to.have.property('class', 'Cancelled');
    return vcpus;
  };

  it('do not count for the next who wants some, when the guest lets them go', async () => {
    const vcpus = await halfShrunk(5_000);
    machine.isDeaf = false;
    const growing = vcpus.resize(ctx, 3);
    // What it asks at once it has been told by then.
    for (let turns = 0; turns < 5; turns += 1) await session.execute(ctx, 'qom-list');
    machine.letGo('c1');
    machine.letGo('c2');
    expect(await growing).to.equal(3);
    expect([...machine.devices]).to.have.members(['c1', 'c2']);
  });

  it('are used on when it does not', async () => {
    const vcpus = await halfShrunk(50);
    expect(await vcpus.resize(ctx, 2)).to.equal(3);
    expect(machine.asked.filter((one) => one === 'device_add c3')).to.deep.equal([]);
    machine.isDeaf = false;
    expect(await vcpus.resize(ctx, 2)).to.equal(2);
    expect([...machine.devices]).to.deep.equal(['c1']);
  });
});
