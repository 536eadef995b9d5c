/** Plugs and unplugs without end, until it is killed; a stand-in for a daemon that dies at any moment. */
import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { QemuDriver } from '../../../lib/drivers/qemu/driver.js';
import type { QemuSettings } from '../../../lib/drivers/qemu/settings.js';
import type { LayerDevice } from '../../../lib/model/image.js';
import type { VmRecord } from '../../../lib/model/vm.js';

export interface CrashPlan {
  readonly settings: QemuSettings;
  readonly record: VmRecord;
  readonly owner: string;
  readonly layers: readonly LayerDevice[];
  readonly disks: readonly string[];
}

const plan = JSON.parse(process.argv[2] ?? '') as CrashPlan;
const ctx = background();
const driver = new QemuDriver({ settings: plan.settings, exec: systemExec, logger: silentLogger });
const vm = await driver.adopt(ctx, plan.record);
if (vm === undefined) throw new Error('there is no VM to take over');
process.stdout.write('ready\n');
for (;;) {
  const { owner } = plan;
  for (const disk of plan.disks) await vm.plugDisk(ctx, owner, disk);
  await vm.plugLayers(ctx, owner, plan.layers);
  await vm.unplugGone(ctx, owner);
  process.stdout.write('round\n');
}
