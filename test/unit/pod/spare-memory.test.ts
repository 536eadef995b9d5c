import { expect } from 'chai';
import fc from 'fast-check';

import { MIB } from '../../../lib/base/units.js';
import { nextMib } from '../../../lib/pod/spare-memory.js';

/** Of a guest of `mib`, of which its kernel has kept some at boot. */
function memory(mib: number, availableMib: number): { totalBytes: number; availableBytes: number } {
  return { totalBytes: (mib - 40) * MIB, availableBytes: availableMib * MIB };
}

describe('memory that a guest can spare', () => {
  it('is asked for by halves, and a small rest at once', () => {
    expect(nextMib(4096, 256, memory(4096, 3900))).to.equal(2349);
    expect(nextMib(600, 256, memory(600, 500))).to.equal(378);
    expect(nextMib(378, 256, memory(378, 278))).to.equal(256);
  });

  it('is not what would leave too little', () => {
    expect(nextMib(600, 256, memory(600, 90))).to.equal(600 - 34);
    expect(nextMib(600, 256, memory(600, 59))).to.equal(600);
    expect(nextMib(600, 256, memory(600, 0))).to.equal(600);
    expect(nextMib(230, 200, memory(230, 33))).to.equal(230);
    expect(nextMib(258, 256, memory(258, 100))).to.equal(256);
  });

  it('is nothing when the guest has too little already', () => {
    expect(nextMib(256, 256, memory(256, 200))).to.equal(256);
    expect(nextMib(256, 300, memory(256, 200))).to.equal(256);
  });

  it('brings a guest that uses little to its target, and none below what it uses', () => {
    const sizes = fc.record({
      targetMib: fc.integer({ min: 128, max: 8192 }),
      moreMib: fc.nat(65_536),
      usedMib: fc.nat(70_000),
    });
    fc.assert(
      fc.property(sizes, ({ targetMib, moreMib, usedMib }) => {
        let mib = targetMib + moreMib;
        for (let steps = 0; ; steps += 1) {
          expect(steps).to.be.lessThan(40);
          const availableMib = Math.max(0, mib - 40 - usedMib);
          const next = nextMib(mib, targetMib, memory(mib, availableMib));
          expect(next).to.be.within(targetMib, mib);
          if (next === mib) break;
          expect(next - 40 - usedMib).to.be.greaterThan(31);
          mib = next;
        }
        const lowest = Math.max(targetMib, Math.ceil((usedMib + 40) / 0.9) + 40);
        if (mib > targetMib) expect(mib).to.be.lessThan(lowest + 8);
      }),
    );
  });
});
