import { expect } from 'chai';

import { PodHarness } from '../../fakes/pod-harness.js';
import type { FakeVm } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

const nanosPerMs = 1_000_000;

describe('the clock of a guest', () => {
  let h: PodHarness;
  let vm: FakeVm;

  beforeEach(async () => {
    h = await PodHarness.create({ clockMs: 3 });
    vm = h.world.vm(await h.run());
  });

  afterEach(async () => h.close());

  const aheadMs = (): number => Number(vm.guest.aheadNanos) / nanosPerMs;
  const comparedAgain = async (times: number): Promise<void> => {
    const { calls } = h.daemon;
    const before = calls.length;
    await eventually(
      () => calls.slice(before).filter((call) => call === 'guest.adjustClock').length >= times,
    );
  };

  it('is set right when it is behind or ahead', async () => {
    for (const ms of [-3_000, 7_000, -100, 3_600_000]) {
      vm.guest.aheadNanos = BigInt(ms * nanosPerMs);
      await eventually(() => Math.abs(aheadMs()) < 50);
    }
  });

  it('is not touched when it is right', async () => {
    await comparedAgain(10);
    expect(aheadMs()).to.equal(0);
  });

  it('is compared again after a guest has not answered', async () => {
    for (const kind of ['before', 'after'] as const) {
      h.daemon.fail('guest.adjustClock', kind);
      await comparedAgain(3);
    }
    vm.guest.aheadNanos = BigInt(5_000 * nanosPerMs);
    await eventually(() => Math.abs(aheadMs()) < 50);
  });
});
