/** What every `VmDriver` must do; run on the fake and on each real hypervisor. */
import { background } from '../../lib/base/context.js';
import type { RunningVm, VmDriver, VmSpec } from '../../lib/vm/ports.js';
import { diskTests, layerTests, serialPortTests } from './vm-driver/devices.js';
import { lifeTests } from './vm-driver/life.js';
import { restartTests } from './vm-driver/restart.js';
import type { VmDriverHarness } from './vm-driver/setting.js';
import { sizeTests } from './vm-driver/size.js';

export type { VmDriverHarness } from './vm-driver/setting.js';

const ctx = background();

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

    const start = async (given?: VmSpec): Promise<{ spec: VmSpec; vm: RunningVm }> => {
      const spec = given ?? (await harness.newSpec());
      const vm = await driver.start(ctx, spec);
      await vm.resume(ctx);
      return { spec, vm };
    };

    lifeTests(() => ({ harness, driver, start }));
    layerTests(() => ({ harness, driver, start }));
    diskTests(() => ({ harness, driver, start }));
    serialPortTests(() => ({ harness, driver, start }));
    sizeTests(() => ({ harness, driver, start }));
    restartTests(() => ({ harness, driver, start }));
  });
}
