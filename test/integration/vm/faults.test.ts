import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { expect } from 'chai';

import { background, sleep, withTimeout } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import { bookSchema } from '../../../lib/drivers/qemu/device-book.js';
import type { DeviceEntry } from '../../../lib/drivers/qemu/device-book.js';
import { rejection } from '../../tools/rejection.js';
import type { CrashPlan } from './crash-daemon.js';
import type { QemuHarness } from './qemu-harness.js';
import { qemuHarness } from './qemu-harness.js';

const ctx = background();
const crashDaemon = fileURLToPath(new URL('crash-daemon.js', import.meta.url));
const crashCount = 8;
const crashDelayMaxMs = 400;
const lookAgainMs = 20;
/** Eight daemons and a boot, on a machine that may be busy. */
const crashTimeoutMs = 240_000;

describe('faults around a QEMU', () => {
  let harness: QemuHarness;

  afterEach(async () => {
    await harness.cleanUp();
  });

  it('keeps its books right when the daemon is killed at any moment of plugging', async function () {
    this.timeout(crashTimeoutMs);
    harness = await qemuHarness({ unplugTimeoutMs: 20_000 });
    const spec = await harness.newSpec();
    const vm = await harness.running(spec);
    await harness.guestUp(vm);
    await vm.release();
    const record = { ...spec.record, pid: vm.pid, processStartTicks: vm.processStartTicks };
    const layers = [await harness.newLayer(), await harness.newLayer(), await harness.newLayer()];
    const disks = [await harness.newDisk(), await harness.newDisk()];
    const plan: CrashPlan = { settings: harness.settings, record, owner: newId(), layers, disks };
    for (let crash = 0; crash < crashCount; crash += 1) {
      const daemon = spawn(process.execPath, [crashDaemon, JSON.stringify(plan)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = once(daemon, 'exit');
      await Promise.race([once(daemon.stdout, 'data'), ended]);
      await sleep(ctx, (crash / crashCount) * crashDelayMaxMs + Math.random() * 50);
      daemon.kill('SIGKILL');
      // Not by an error of its own.
      expect(await ended).to.deep.equal([null, 'SIGKILL']);
    }
    const heir = await harness.restartedDriver().adopt(ctx, record);
    if (heir === undefined) throw new Error('the VM is gone');
    const path = heir.agentSocketPath.replace(/agent$/, 'devices.json');
    const owned = bookSchema.parse(JSON.parse(await readFile(path, 'utf8'))).entries;
    for (const owner of new Set(owned.flatMap(({ owners }) => owners))) await heir.unplugGone(ctx, owner);
    // What the last daemon began to unplug goes too, without anybody asking again.
    const book = async (): Promise<readonly DeviceEntry[]> =>
      bookSchema.parse(JSON.parse(await readFile(path, 'utf8'))).entries;
    // Half a group of layers cannot: QEMU takes no persistent memory back.
    const isLeaving = ({ kind, state }: DeviceEntry): boolean => kind !== 'layers' && state === 'leaving';
    while ((await book()).some(isLeaving)) await sleep(ctx, lookAgainMs);
    const kept = await book();
    expect(kept.filter(({ kind }) => kind !== 'layers')).to.deep.equal([]);
    for (let port = kept.length; port < harness.portCount; port += 1)
      await heir.plugDisk(ctx, newId(), await harness.newDisk());
    expect(await heir.plugLayers(ctx, newId(), layers)).to.have.length(layers.length);
  });

  it('lets callers go when QEMU hangs, and can still kill it', async () => {
    harness = await qemuHarness();
    const vm = await harness.running();
    const owner = newId();
    await vm.plugDisk(ctx, owner, await harness.newDisk());
    process.kill(vm.pid, 'SIGSTOP');
    const disk = await harness.newDisk();
    const calls = [
      vm.plugDisk(withTimeout(ctx, 100, 'plugging'), owner, disk),
      vm.unplugGone(withTimeout(ctx, 100, 'unplugging'), owner),
      vm.powerDown(withTimeout(ctx, 100, 'powering down')),
      vm.resize(withTimeout(ctx, 100, 'resizing'), { vcpus: 1, memoryMib: 512 }),
    ];
    for (const error of await Promise.all(calls.map((call) => rejection(call))))
      expect(error).to.have.property('class', 'DeadlineExceeded');
    await vm.kill(ctx);
    expect(await vm.exited).to.have.property('signal', 'SIGKILL');
  });

  it('is not held up by a guest that never lets a device go', async () => {
    harness = await qemuHarness({ unplugTimeoutMs: 100 });
    // It has only just started to boot.
    const vm = await harness.running();
    const owner = newId();
    const disk = await harness.newDisk();
    const first = await vm.plugDisk(ctx, owner, disk);
    await vm.unplugGone(ctx, owner);
    expect(await vm.plugDisk(ctx, newId(), await harness.newDisk())).not.to.deep.equal(first);
  });

  it('says that the guest gave up, when it did', async () => {
    harness = await qemuHarness();
    const { guest } = harness.settings;
    await harness.cleanUp();
    // Without a root image the agent cannot go on.
    harness = await qemuHarness({ guest: { ...guest, root: undefined } });
    const vm = await harness.running();
    expect((await vm.exited).lastWords).to.match(/the guest (reset itself|shut down)/);
  });

  it('keeps the console when asked', async () => {
    harness = await qemuHarness({ console: true });
    const { guest } = harness.settings;
    await harness.cleanUp();
    harness = await qemuHarness({ console: true, guest: { ...guest, root: undefined } });
    const vm = await harness.running();
    expect((await vm.exited).lastWords).to.match(/herkos|reboot: Power/);
  });

  it('gives the first card’s port away again, and does not count on a card that is not there', async () => {
    harness = await qemuHarness();
    const mac = '02:00:00:00:00:07';
    const spec = await harness.newTemplateSpec();
    const vm = await harness.running(spec);
    await harness.guestUp(vm);
    await vm.plugNic(ctx, mac);
    await vm.unplugGone(ctx, 'pod');
    expect(await vm.describe(ctx)).to.have.deep.property('devices', []);
    expect(await vm.plugNic(ctx, mac)).to.equal(mac);
    // A clone that a daemon of an earlier release has started.
    const old = await harness.newSpec();
    const record = { ...old.record, template: { id: newId(), gid: harness.settings.sharedGid } };
    await (await harness.running({ ...old, record })).release();
    const heir = await harness.restartedDriver().adopt(ctx, record);
    expect(heir?.spareNic).to.equal(undefined);
    expect(await heir?.plugNic(ctx, mac)).to.equal(mac);
  });

  it('sees the end of a VM that it took over, though it is no child', async () => {
    harness = await qemuHarness();
    const spec = await harness.newSpec();
    const vm = await harness.running(spec);
    await vm.release();
    const heir = await harness.restartedDriver().adopt(ctx, spec.record);
    if (heir === undefined) throw new Error('the VM is gone');
    const plugged = heir.plugDisk(ctx, newId(), await harness.newDisk()).catch((error: unknown) => {
      expect(error).to.have.property('class', 'Unavailable');
    });
    harness.killProcess(heir.pid);
    await heir.exited;
    await plugged;
  });
});
