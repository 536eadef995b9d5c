import { expect } from 'chai';
import fc from 'fast-check';

import { toNumber } from '../../../../lib/base/ip.js';
import {
  contains,
  isLinkLocalV6,
  networkKey,
  parseCidr,
  parseIp,
  sameIp,
} from '../../../../lib/wire/cni/address.js';

describe('addresses and networks as text', () => {
  it('reads CIDRs of both families, and single addresses as hosts', () => {
    expect(parseCidr('10.1.2.3/16', 'x')).to.deep.equal({ ip: '10.1.2.3', prefixLength: 16 });
    expect(parseCidr('fd00::1/64', 'x')).to.deep.equal({ ip: 'fd00::1', prefixLength: 64 });
    expect(parseCidr('10.0.0.1', 'x').prefixLength).to.equal(32);
    expect(parseCidr('::/0', 'x').prefixLength).to.equal(0);
  });

  for (const text of [
    '',
    '/',
    '10.0.0.1/33',
    '10.0.0.1/-1',
    '10.0.0.1/',
    '10.0.0.1/1/2',
    'fd00::/129',
    'fe80::1%eth0/64',
    'x/8',
    '10.0.0.1/8x',
  ])
    it(`refuses '${text}'`, () => {
      expect(() => parseCidr(text, 'field')).to.throw(/^field: /);
    });

  it('refuses what is not an address', () => {
    for (const text of ['', '10.0.0', 'fe80::1%eth0', 'host'])
      expect(() => parseIp(text, 'x')).to.throw(/not an IP/);
  });

  it('knows equal addresses however they are spelt', () => {
    expect(sameIp('fd00:0:0:0::1', 'fd00::1')).to.equal(true);
    expect(sameIp('::ffff:10.0.0.1', '::ffff:a00:1')).to.equal(true);
    expect(sameIp('10.0.0.1', '::a00:1')).to.equal(false);
    expect(networkKey({ ip: 'fd00:1::abcd', prefixLength: 64 })).to.equal(
      networkKey({ ip: 'fd00:1:0::', prefixLength: 64 }),
    );
    expect(networkKey({ ip: '0.0.0.0', prefixLength: 0 })).to.not.equal(
      networkKey({ ip: '::', prefixLength: 0 }),
    );
  });

  it('knows link-local addresses', () => {
    expect(['fe80::1', 'febf::1', 'fec0::1', 'fd00::1', '169.254.1.1'].map(isLinkLocalV6)).to.deep.equal([
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  it('agrees with arithmetic on numbers', () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 }), (a, b, prefixLength) => {
        const size = 2n ** BigInt(32 - prefixLength);
        expect(contains({ ip: a, prefixLength }, b)).to.equal(toNumber(a) / size === toNumber(b) / size);
      }),
    );
    fc.assert(
      fc.property(fc.ipV6(), (ip) => {
        const number = toNumber(ip);
        expect(number >= 0n && number < 2n ** 128n).to.equal(true);
        const full = number
          .toString(16)
          .padStart(32, '0')
          .replaceAll(/(.{4})(?!$)/g, '$1:');
        expect(toNumber(full)).to.equal(number);
      }),
    );
  });
});
