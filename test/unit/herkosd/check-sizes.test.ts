import { expect } from 'chai';

import { checkSizes } from '../../../cmd/herkosd/check-sizes.js';
import { vmMost, vmSettings } from '../../../cmd/herkosd/settings.js';
import { HerkosError, messageOf } from '../../../lib/base/errors.js';
import { parseConfig } from '../../../lib/config/load.js';

/** What is said of these settings on a node of two processors; empty: they are good. */
function saidOf(vm: string, nodeMib = 4096 + 3): string {
  const config = parseConfig(`[vm]\n${vm}\n`, 'x');
  const { sizing } = vmSettings(config);
  try {
    checkSizes(config, { ...sizing, ...vmMost(sizing.memoryMibDefault, 2, nodeMib) });
    return '';
  } catch (error) {
    expect(error).to.be.instanceOf(HerkosError).with.property('class', 'InvalidArgument');
    return messageOf(error);
  }
}

describe('sizes in the configuration', () => {
  it('are good up to what the node can give one VM', () => {
    for (const vm of ['', 'memory = "3840MiB"\nmemory_overhead = "3840MiB"\nvcpus = 2', 'memory = "128MiB"'])
      expect(saidOf(vm), vm).to.equal('');
  });

  it('are refused above it, by the name of the key', () => {
    for (const key of ['memory', 'memory_overhead'])
      // A VM of 3841 MiB would be rounded up to more than there is.
      for (const [size, mib] of [
        ['3841MiB', '3841MiB'],
        ['4TiB', '4194304MiB'],
      ] as const)
        expect(saidOf(`${key} = "${size}"`)).to.include(
          `vm.${key}: ${mib} is more than this node can give one VM; write "3840MiB" at most`,
        );
    expect(saidOf('vcpus = 3')).to.include('vm.vcpus: 3 is more').and.to.include('write 2 at most');
  });

  it('are refused below what a guest can start with', () => {
    for (const size of ['1MiB', '0', '127MiB'])
      expect(saidOf(`memory = "${size}"`))
        .to.include('vm.memory: ')
        .and.to.include('write "128MiB" at least');
  });

  it('are all named at once', () => {
    expect(saidOf('memory = "1MiB"\nvcpus = 64')).to.include('vm.memory: ').and.to.include('vm.vcpus: ');
  });

  it('cannot be had on a node that is too small for any', () => {
    expect(saidOf('', 300)).to.include('vm.memory: ').and.to.include('a node with more memory');
  });
});
