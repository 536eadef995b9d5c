import { expect } from 'chai';
import fc from 'fast-check';

import { HerkosError } from '../../../lib/base/errors.js';
import { MIB } from '../../../lib/base/units.js';
import type { LinuxResources, PodDemand } from '../../../lib/model/resources.js';
import type { VmShape } from '../../../lib/model/vm.js';
import { memoryMibFloor } from '../../../lib/vm/settings.js';
import { hypervisorLimits, sizeFor } from '../../../lib/vm/sizing.js';
import { UidPool } from '../../../lib/vm/uid-pool.js';

const settings = {
  vcpusDefault: 1,
  memoryMibDefault: 256,
  guestOverheadMib: 96,
  vcpusMax: 8,
  memoryMibMax: 4096,
};

const mib = (count: number): LinuxResources => ({ memoryLimitBytes: count * MIB });
const cpus = (count: number): LinuxResources => ({ cpuQuotaUs: count * 100_000, cpuPeriodUs: 100_000 });

/** @param containers in order; they are called a, b, c … */
function sizeOf(pod: Omit<PodDemand, 'containers'>, ...containers: LinuxResources[]): VmShape {
  const named = containers.map((resources, index) => ({ name: 'abcdefghij'.charAt(index), resources }));
  return sizeFor(settings, { ...pod, containers: named });
}

describe('vm sizing', () => {
  it('gives a pod without limits the defaults', () => {
    expect(sizeOf({})).to.deep.equal({ vcpus: 1, memoryMib: 256 });
    expect(sizeOf({}, {}, {})).to.deep.equal({ vcpus: 1, memoryMib: 256 });
    expect(sizeOf({ resources: { cpuQuotaUs: -1, memoryLimitBytes: 0 } })).to.deep.equal({
      vcpus: 1,
      memoryMib: 256,
    });
  });

  it('adds what the guest needs to what the pod asks for', () => {
    expect(sizeOf({ resources: mib(512) })).to.have.property('memoryMib', 608);
    expect(sizeOf({ resources: mib(512), overhead: mib(60) })).to.have.property('memoryMib', 608);
    expect(sizeOf({ resources: { memoryLimitBytes: 1 } })).to.have.property('memoryMib', memoryMibFloor);
    expect(sizeOf({ resources: { memoryLimitBytes: 512 * MIB + 1 } })).to.have.property('memoryMib', 612);
  });

  it('adds containers up, and takes the larger of them and the pod', () => {
    expect(sizeOf({}, mib(512), mib(256))).to.have.property('memoryMib', 864);
    expect(sizeOf({ resources: mib(1024) }, mib(512), mib(256))).to.have.property('memoryMib', 1120);
    expect(sizeOf({ resources: mib(128) }, mib(512), mib(256))).to.have.property('memoryMib', 864);
  });

  it('leaves the hypervisor its share of the overhead', () => {
    expect(sizeOf({ resources: mib(512), overhead: mib(160) })).to.have.property('memoryMib', 608);
    expect(sizeOf({ resources: mib(512), overhead: mib(256) })).to.have.property('memoryMib', 704);
    expect(sizeOf({ overhead: mib(256) }, mib(512))).to.have.property('memoryMib', 704);
  });

  it('has room for containers without limits besides those that have some', () => {
    expect(sizeOf({}, mib(512), {}, {})).to.have.property('memoryMib', 768);
    expect(sizeOf({ resources: mib(512) }, mib(512), {})).to.have.property('memoryMib', 768);
    expect(sizeFor({ ...settings, vcpusDefault: 2 }, { containers: [] })).to.have.property('vcpus', 2);
    const open = [
      { name: 'a', resources: cpus(0.5) },
      { name: 'b', resources: {} },
    ];
    expect(sizeFor({ ...settings, vcpusDefault: 2 }, { containers: open })).to.have.property('vcpus', 2);
  });

  it('rounds processors up, after adding', () => {
    expect(sizeOf({ resources: { cpuQuotaUs: 250_000 } })).to.have.property('vcpus', 3);
    expect(sizeOf({ resources: { cpuQuotaUs: 1000 } })).to.have.property('vcpus', 1);
    expect(sizeOf({ resources: { cpuQuotaUs: 100_000, cpuPeriodUs: 50_000 } })).to.have.property('vcpus', 2);
    expect(sizeOf({}, cpus(0.5), cpus(0.5))).to.have.property('vcpus', 1);
    expect(sizeOf({}, cpus(0.6), cpus(0.3), cpus(0.1))).to.have.property('vcpus', 1);
    expect(sizeOf({}, cpus(0.6), cpus(0.5))).to.have.property('vcpus', 2);
  });

  it('lets processor limits add up to more than there are', () => {
    expect(sizeOf({}, cpus(8), cpus(8))).to.have.property('vcpus', 8);
    expect(sizeOf({ resources: cpus(16) })).to.have.property('vcpus', 8);
  });

  it('says who asks for what the node cannot give', () => {
    const memory = 'this node gives one VM at most 4096 MiB';
    for (const [run, said] of [
      [
        () => sizeOf({}, {}, mib(8192)),
        'the container b asks for 8192 MiB of memory; with what the guest needs itself that is 8288 MiB',
      ],
      [
        () => sizeOf({}, mib(2048), mib(2048)),
        'the pod’s containers ask for 4096 MiB of memory together (a: 2048 MiB of memory, b: 2048 MiB of memory)',
      ],
      [() => sizeOf({ resources: mib(8192) }, mib(1)), 'the pod asks for 8192 MiB of memory'],
      [
        () => sizeOf({ overhead: mib(8192) }, {}),
        'a pod without a memory limit is given 256 MiB of memory (vm.memory); with what the guest needs itself that is 8128 MiB',
      ],
    ] as const)
      expect(run)
        .to.throw(HerkosError, said)
        .that.satisfies(
          (error: HerkosError) => error.message.endsWith(memory) && error.reason === 'VM_TOO_BIG',
        );
  });

  it('says of too many processors how many there are, and nothing of memory', () => {
    expect(() => sizeOf({}, mib(1), { ...cpus(8.5), ...mib(8192) }))
      .to.throw(HerkosError, 'the container b asks for 9 processors, and this node gives one VM at most 8; ')
      .that.satisfies(
        (error: HerkosError) => !error.message.includes('MiB') && error.reason === 'VM_TOO_BIG',
      );
  });

  it('lets the hypervisor have page tables for all of its guest', () => {
    const limitMib = (memoryMib: number): number =>
      (hypervisorLimits({ vcpus: 1, memoryMib }).memoryBytesMax ?? 0) / MIB;
    expect(limitMib(256)).to.equal(256 + 256 + 2);
    expect(limitMib(65_536 + 1)).to.equal(65_536 + 1 + 256 + 513);
  });

  it('never gives less than asked for, and lets the hypervisor have more', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 4 }), (each) => {
        const shape = sizeOf({}, ...each.map(mib));
        const sum = each.reduce((total, one) => total + one, 0);
        expect(shape.memoryMib).to.be.within(sum + settings.guestOverheadMib, Math.max(128, sum + 99));
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
