import { expect } from 'chai';

import { registrySettings, vmMost, vmSettings } from '../../../cmd/herkosd/settings.js';
import { parseConfig } from '../../../lib/config/load.js';

const gib = 1024;

describe('the settings of herkosd', () => {
  it('promise a VM no more than the node has, or QEMU’s machine is made for', () => {
    expect(vmMost(256, 8, 16 * gib)).to.deep.equal({ vcpusMax: 8, memoryMibMax: 16 * gib - 256 });
    expect(vmMost(512, 256, 1024 * gib)).to.deep.equal({ vcpusMax: 64, memoryMibMax: 256 * gib + 512 });
    expect(vmMost(256, 1, 128)).to.deep.equal({ vcpusMax: 1, memoryMibMax: 0 });
  });

  it('have what VMs boot with as their default size', () => {
    const { sizing } = vmSettings(parseConfig('[vm]\nmemory = "300MiB"\nvcpus = 2\n', 'x'));
    expect(sizing).to.deep.include({ memoryMibDefault: 300, vcpusDefault: 2, guestOverheadMib: 96 });
    expect(sizing.vcpusMax).to.be.within(1, 64);
  });

  it('have whole milliseconds: the HTTP client refuses others', () => {
    const settings = registrySettings(parseConfig('[image]\nstall_timeout_seconds = 1.0016\n', 'x'));
    expect(settings.stallTimeoutMs).to.equal(1002);
  });
});
