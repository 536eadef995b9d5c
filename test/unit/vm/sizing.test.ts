import { expect } from 'chai';
import fc from 'fast-check';

import { MIB } from '../../../lib/base/units.js';
import { memoryMibFloor } from '../../../lib/vm/settings.js';
import { hypervisorLimits, shapeFor } from '../../../lib/vm/sizing.js';
import { UidPool } from '../../../lib/vm/uid-pool.js';

const settings = {
  vcpusDefault: 1,
  memoryMibDefault: 256,
  guestOverheadMib: 96,
  vcpusMax: 8,
  memoryMibMax: 4096,
};

describe('vm sizing', () => {
  it('gives a pod without limits the defaults', () => {
    expect(shapeFor(settings)).to.deep.equal({ vcpus: 1, memoryMib: 256 });
    expect(shapeFor(settings, { cpuQuotaUs: -1, memoryLimitBytes: 0 })).to.deep.equal({
      vcpus: 1,
      memoryMib: 256,
    });
  });

  it('adds what the guest needs to what the pod asks for', () => {
    expect(shapeFor(settings, { memoryLimitBytes: 512 * MIB })).to.have.property('memoryMib', 608);
    const overhead = { memoryLimitBytes: 160 * MIB };
    expect(shapeFor(settings, { memoryLimitBytes: 512 * MIB }, overhead)).to.have.property('memoryMib', 672);
    expect(shapeFor(settings, { memoryLimitBytes: 1 })).to.have.property('memoryMib', memoryMibFloor);
  });

  it('rounds processors up', () => {
    expect(shapeFor(settings, { cpuQuotaUs: 250_000 })).to.have.property('vcpus', 3);
    expect(shapeFor(settings, { cpuQuotaUs: 1000 })).to.have.property('vcpus', 1);
    expect(shapeFor(settings, { cpuQuotaUs: 100_000, cpuPeriodUs: 50_000 })).to.have.property('vcpus', 2);
  });

  it('says what the node cannot give', () => {
    expect(() => shapeFor(settings, { memoryLimitBytes: 8192 * MIB })).to.throw('8288 MiB; this node gives');
    expect(() => shapeFor(settings, { cpuQuotaUs: 900_000 })).to.throw('9 vCPUs');
  });

  it('never gives less than asked for, and lets the hypervisor have more', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3900 }), (mib) => {
        const shape = shapeFor(settings, { memoryLimitBytes: mib * MIB });
        expect(shape.memoryMib).to.be.at.least(mib + settings.guestOverheadMib);
        expect(hypervisorLimits(shape).memoryBytesMax).to.be.greaterThan(shape.memoryMib * MIB);
      }),
    );
  });
});

describe('uid pool', () => {
  it('never gives a uid twice, and goes round before it gives one again', () => {
    const pool = new UidPool(100, 3);
    pool.reserve(101);
    expect([pool.take(), pool.take()]).to.deep.equal([100, 102]);
    expect(() => pool.take()).to.throw('all 3 user ids');
    pool.give(102);
    pool.give(100);
    expect([pool.take(), pool.take()]).to.deep.equal([100, 102]);
  });
});
