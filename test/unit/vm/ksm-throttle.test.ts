import { expect } from 'chai';
import fc from 'fast-check';

import {
  isWorthChanging,
  measuredPageCostUs,
  pageCostUsDefault,
  parsePressure,
  pressureOfLoad,
  scanRate,
} from '../../../lib/vm/ksm/throttle.js';

/** Of one core, when every page costs what was measured. */
function shareOf({ pagesToScan, sleepMs }: ReturnType<typeof scanRate>, pageCostUs: number): number {
  const workMs = (pagesToScan * pageCostUs) / 1_000;
  return workMs / (workMs + sleepMs);
}

describe('the speed of the scanner for equal pages', () => {
  const calm = { isFresh: true, pressurePercent: 0, pageCostUs: pageCostUsDefault };

  it('is higher while there is something new, and lower the more processes wait', () => {
    const fast = scanRate(calm);
    const slow = scanRate({ ...calm, isFresh: false });
    expect(fast).to.deep.equal({ pagesToScan: 400, sleepMs: 20 });
    expect(slow).to.deep.equal({ pagesToScan: 400, sleepMs: 200 });
    const half = scanRate({ ...calm, pressurePercent: 30 });
    expect(half.pagesToScan).to.equal(200);
    expect(scanRate({ ...calm, pressurePercent: 10 })).to.deep.equal(fast);
    for (const pressurePercent of [50, 99, 100])
      expect(scanRate({ ...calm, pressurePercent }).pagesToScan).to.equal(0);
  });

  it('never takes more than its share of a core, whatever a page costs and however calm it is', () => {
    const input = fc.record({
      isFresh: fc.boolean(),
      pressurePercent: fc.double({ min: 0, max: 100, noNaN: true }),
      pageCostUs: fc.double({ min: 1, max: 100, noNaN: true }),
    });
    fc.assert(
      fc.property(input, (one) => {
        const rate = scanRate(one);
        expect(Number.isInteger(rate.pagesToScan)).to.equal(true);
        expect(shareOf(rate, one.pageCostUs)).to.be.at.most(one.isFresh ? 0.1 : 0.01);
        const worse = scanRate({ ...one, pressurePercent: one.pressurePercent + 5 });
        expect(worse.pagesToScan).to.be.at.most(rate.pagesToScan);
      }),
    );
  });

  it('does not trust a measurement beyond reason', () => {
    expect(scanRate({ ...calm, pageCostUs: 0 })).to.deep.equal(scanRate({ ...calm, pageCostUs: 1 }));
    expect(scanRate({ ...calm, pageCostUs: 1e9 })).to.deep.equal(scanRate({ ...calm, pageCostUs: 100 }));
    expect(measuredPageCostUs(40, 1_000_000)).to.equal(undefined);
    expect(measuredPageCostUs(1_000, 10)).to.equal(undefined);
    expect(measuredPageCostUs(1_000, 100_000)).to.equal(10);
  });

  it('is not changed for little, but for a rest always', () => {
    const rate = { pagesToScan: 100, sleepMs: 20 };
    expect(isWorthChanging(rate, { ...rate })).to.equal(false);
    expect(isWorthChanging(rate, { ...rate, pagesToScan: 110 })).to.equal(false);
    expect(isWorthChanging(rate, { ...rate, pagesToScan: 70 })).to.equal(true);
    expect(isWorthChanging(rate, { ...rate, sleepMs: 200 })).to.equal(true);
    expect(isWorthChanging({ ...rate, pagesToScan: 0 }, { ...rate, pagesToScan: 0 })).to.equal(false);
    expect(isWorthChanging({ ...rate, pagesToScan: 0 }, { ...rate, pagesToScan: 1 })).to.equal(true);
    expect(isWorthChanging({ ...rate, pagesToScan: 1 }, { ...rate, pagesToScan: 0 })).to.equal(true);
  });

  it('reads pressure, and the load where there is none', () => {
    expect(parsePressure('some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00\n')).to.equal(
      12.5,
    );
    expect(parsePressure('full avg10=1.00 avg60=0 avg300=0 total=0\n')).to.equal(undefined);
    expect(pressureOfLoad('2.00 1.00 0.50 1/234 567\n', 4)).to.equal(0);
    expect(pressureOfLoad('3.00 1.00 0.50 1/234 567\n', 4)).to.equal(25);
    expect(pressureOfLoad('40.00 1.00 0.50 1/234 567\n', 4)).to.equal(100);
    expect(pressureOfLoad('nonsense', 4)).to.equal(100);
    expect(pressureOfLoad('', 4)).to.equal(100);
  });
});
