import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { silentLogger } from '../../../../lib/base/logger.js';
import { DeviceBook, bookSchema } from '../../../../lib/drivers/qemu/device-book.js';
import type { DeviceEntry } from '../../../../lib/drivers/qemu/device-book.js';
import { LayerPlugs } from '../../../../lib/drivers/qemu/layer-plugs.js';
import { Plugger } from '../../../../lib/drivers/qemu/plugger.js';
import { QmpSession } from '../../../../lib/drivers/qemu/qmp-session.js';
import type { LayerDevice } from '../../../../lib/model/image.js';
import { FakeMachine } from '../../../fakes/qmp-machine.js';
import { eventually } from '../../../tools/eventually.js';
import { rejection } from '../../../tools/rejection.js';

const ctx = background();
const sizeBytes = 2 * 1024 * 1024;

describe('layers, which QEMU never takes back', () => {
  let machine: FakeMachine;
  let session: QmpSession;
  let directory: string;
  /** As a daemon that begins now would read it. */
  let written: readonly DeviceEntry[];

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hkl-'));
    machine = new FakeMachine();
    await machine.qemu.listen();
    session = await QmpSession.connect(ctx, machine.qemu.path);
    written = [];
  });

  afterEach(async () => {
    session.destroy();
    await machine.qemu.close();
    await rm(directory, { recursive: true });
  });

  const plugger = (entries: readonly DeviceEntry[] = []): Plugger =>
    new Plugger({
      session,
      book: new DeviceBook({ portCount: 4, slotCount: 1 }, entries),
      save: (json) => {
        written = bookSchema.parse(JSON.parse(json)).entries;
        return Promise.resolve();
      },
      unplugTimeoutMs: 1_000,
      logger: silentLogger,
    });
  const layer = async (key: string): Promise<LayerDevice> => {
    const path = join(directory, key);
    await writeFile(path, '');
    await truncate(path, sizeBytes);
    return { key, path, sizeBytes, subdirs: [''] };
  };
  const image = (): Promise<LayerDevice[]> => Promise.all(['a', 'b', 'c'].map(layer));
  /** The caller leaves when QEMU is asked for this, for the first time. */
  const leavesAt = (plugs: Plugger, command: string, layers: readonly LayerDevice[]): Promise<unknown> => {
    const caller = withCancel(ctx);
    machine.onCommand = (asked) => {
      if (asked === command) caller.cancel();
    };
    return rejection(new LayerPlugs(plugs, 'virtio-pmem').plug(caller, 'one', layers));
  };

  it('are plugged to the end though the caller leaves in the middle, and serve the next', async () => {
    const plugs = plugger();
    const layers = await image();
    expect(await leavesAt(plugs, 'device_add l0f2', layers)).to.have.property('class', 'Cancelled');
    const locators = await new LayerPlugs(plugs, 'virtio-pmem').plug(ctx, 'other', layers);
    expect(locators.map((one) => 'function' in one && one.function)).to.deep.equal([0, 1, 2]);
    expect([...machine.devices]).to.have.members(['l0f0', 'l0f1', 'l0f2']);
    expect(written).to.deep.equal([
      { kind: 'layers', index: 0, keys: ['a', 'b', 'c'], owners: ['other'], state: 'plugged' },
    ]);
  });

  it('belong to nobody then, and no more of them are plugged', async () => {
    const plugs = plugger();
    const layers = await Promise.all(Array.from({ length: 10 }, (_, at) => layer(`k${String(at)}`)));
    await leavesAt(plugs, 'device_add l0f7', layers);
    await eventually(() => written[0]?.state === 'plugged' && written[0].owners.length === 0);
    await plugs.exclusive(ctx, () => Promise.resolve());
    expect(written).to.have.length(1);
    expect(machine.devices.size).to.equal(8);
  });

  it('serve the next too when QEMU has answered too late', async () => {
    const plugs = plugger();
    const layers = await image();
    machine.onCommand = (asked) => {
      if (asked === 'device_add l0f0') machine.refuseNext = true;
    };
    await rejection(new LayerPlugs(plugs, 'virtio-pmem').plug(ctx, 'one', layers));
    expect(written).to.deep.include({
      ...{ kind: 'layers', index: 0, keys: ['a', 'b', 'c'] },
      ...{ owners: [], state: 'plugged' },
    });
  });

  it('are found again by the next daemon, whoever plugged them', async () => {
    for (const id of ['l0f0', 'l1f0', 'l2f0', 'l2f1']) machine.devices.add(id);
    const entries: DeviceEntry[] = [
      { kind: 'layers', index: 0, keys: ['a'], owners: [], state: 'plugged' },
      { kind: 'layers', index: 1, keys: ['b'], owners: [], state: 'leaving' },
      { kind: 'layers', index: 2, keys: ['c', 'd', 'e'], owners: ['one'], state: 'plugging' },
      { kind: 'layers', index: 3, keys: ['f'], owners: ['one'], state: 'plugging' },
    ];
    await plugger(entries).reconcile(ctx);
    expect(written.map(({ keys, owners, state }) => [keys[0], state, owners.length])).to.deep.equal([
      ['a', 'plugged', 0],
      ['b', 'plugged', 0],
      // Its first function is missing: no guest has seen it, and no guest will.
      ['c', 'leaving', 0],
    ]);
  });
});
