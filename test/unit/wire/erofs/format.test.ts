import { expect } from 'chai';

import { crc32c } from '../../../../lib/wire/erofs/crc32c.js';
import { decodeDevice, encodeDevice } from '../../../../lib/wire/erofs/format.js';
import { splitXattrName } from '../../../../lib/wire/erofs/node.js';
import {
  deviceBytesFor,
  deviceHead,
  deviceHeadBytes,
  hasDeviceHead,
} from '../../../../lib/wire/erofs/pfn-info.js';

describe('EROFS format', () => {
  it('has the check value of CRC-32C', () => {
    expect((crc32c(0xffff_ffff, Buffer.from('123456789')) ^ 0xffff_ffff) >>> 0).equal(0xe306_9283);
  });

  it('encodes device numbers as the kernel does', () => {
    expect(encodeDevice(5, 1)).equal(0x501);
    expect(encodeDevice(0xfff, 0xfffff)).equal(0xffff_ffff);
    expect(encodeDevice(8, 300)).equal(0x10082c);
    for (const [major, minor] of [
      [0, 0],
      [1, 255],
      [259, 70_000],
    ] as const)
      expect(decodeDevice(encodeDevice(major, minor))).deep.equal({ major, minor });
  });

  it('knows which attributes can be stored', () => {
    expect(splitXattrName('user.a')).deep.equal({ index: 1, suffix: 'a' });
    expect(splitXattrName('system.posix_acl_access')).deep.equal({ index: 2, suffix: '' });
    expect(splitXattrName('security.capability')).deep.equal({ index: 6, suffix: 'capability' });
    for (const name of ['user.', 'other.x', 'system.posix_acl_accessory', 'plain', `user.${'x'.repeat(256)}`])
      expect(splitXattrName(name), name).equal(undefined);
  });
});

describe('device file head', () => {
  const size = deviceBytesFor(5 * 1024 * 1024);
  const head = deviceHead(size, Buffer.alloc(16, 9));

  it('makes every size a multiple of 2 MiB with room for the image', () => {
    for (const image of [1, 4096, deviceHeadBytes, deviceHeadBytes + 1]) {
      expect(deviceBytesFor(image) % deviceHeadBytes).equal(0);
      expect(deviceBytesFor(image)).least(deviceHeadBytes + image);
      expect(deviceBytesFor(image)).lessThan(2 * deviceHeadBytes + image);
    }
  });

  it('states where the data begins and how many pages it has', () => {
    expect(head.toString('latin1', 4096, 4096 + 15)).equal('NVDIMM_PFN_INFO');
    expect(head.readBigUInt64LE(4096 + 56)).equal(BigInt(deviceHeadBytes));
    expect(head.readBigUInt64LE(4096 + 64)).equal(BigInt((size - deviceHeadBytes) / 4096));
    expect(hasDeviceHead(head)).equal(true);
  });

  it('is not taken when a byte of it changes', () => {
    for (const at of [4096, 4096 + 20, 4096 + 72, 4096 + 3000, 8191]) {
      const changed = Buffer.from(head);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(hasDeviceHead(changed), String(at)).equal(false);
    }
    expect(hasDeviceHead(Buffer.alloc(100))).equal(false);
  });
});
