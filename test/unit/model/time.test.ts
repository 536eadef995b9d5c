import { expect } from 'chai';

import { nowUnixNano } from '../../../lib/model/time.js';

describe('the time now', () => {
  const { now } = Date;

  afterEach(() => {
    Date.now = now;
  });

  it("follows the host's clock when that is set, forwards and back", () => {
    for (const aheadMs of [3_600_000, -3_600_000, 0]) {
      Date.now = () => now() + aheadMs;
      const before = Date.now();
      const ms = Number(BigInt(nowUnixNano()) / 1_000_000n);
      // It runs on between two settings and need not be as exact as they are.
      expect(ms).to.be.within(before - 10, Date.now() + 10);
    }
  });

  it('tells two moments within a millisecond apart', () => {
    const times = Array.from({ length: 100 }, () => BigInt(nowUnixNano()));
    expect(times.some((time, at) => at > 0 && time !== times[at - 1])).to.be.true;
    expect(times.some((time) => time % 1_000_000n !== 0n)).to.be.true;
  });
});
