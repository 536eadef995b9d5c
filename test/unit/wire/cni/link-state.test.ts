import { expect } from 'chai';

import { parseLinkState } from '../../../../lib/wire/cni/link-state.js';

// Shapes of iproute2 6.1 after CNI's ptp plugin, shortened to the fields that count and their neighbours.
const link = {
  ifindex: 2,
  ifname: 'eth0',
  flags: ['BROADCAST', 'UP'],
  mtu: 1400,
  link_type: 'ether',
  address: '46:c1:fb:80:dc:19',
  linkinfo: { info_kind: 'veth' },
  addr_info: [
    { family: 'inet', local: '10.232.0.2', prefixlen: 16, scope: 'global', label: 'eth0' },
    { family: 'inet', local: '10.233.0.2', prefixlen: 24, scope: 'global', label: 'eth0' },
    { family: 'inet6', local: 'fd00:2::2', prefixlen: 64, scope: 'global' },
    { family: 'inet6', local: 'fd00:3::9', prefixlen: 64, scope: 'global', dynamic: true },
    { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link' },
  ],
};
const routes = [
  { type: 'unicast', dst: 'default', gateway: '10.232.0.1', table: 'main', protocol: 'boot', flags: [] },
  {
    type: 'unicast',
    dst: '10.99.0.0/16',
    gateway: '169.254.1.1',
    table: 'main',
    protocol: 'boot',
    metric: 7,
    flags: ['onlink'],
    metrics: [{ mtu: 1300, advmss: 1200 }],
  },
  { type: 'unicast', dst: '10.232.0.1', table: 'main', protocol: 'boot', scope: 'link', flags: [] },
  { type: 'unicast', dst: '10.233.0.0/24', table: 'main', protocol: 'kernel', scope: 'link', flags: [] },
  { type: 'local', dst: '10.232.0.2', table: 'local', protocol: 'kernel', flags: [] },
  {
    type: 'unicast',
    dst: 'fd00:2::/64',
    table: 'main',
    protocol: 'kernel',
    metric: 256,
    flags: [],
    pref: 'medium',
  },
  {
    type: 'unicast',
    dst: 'default',
    gateway: 'fd00:2::1',
    table: 'main',
    protocol: 'boot',
    metric: 1024,
    flags: [],
    pref: 'medium',
  },
  {
    type: 'unicast',
    dst: 'default',
    gateway: 'fe80::9',
    table: 'main',
    protocol: 'ra',
    metric: 1024,
    flags: [],
    pref: 'medium',
  },
  { type: 'unicast', dst: 'default', table: 'main', protocol: 'boot', metric: 5, flags: [], pref: 'medium' },
  { type: 'unicast', dst: '10.8.0.0/16', table: '100', protocol: 'boot', flags: [] },
  {
    type: 'unicast',
    dst: '10.7.0.0/16',
    table: 'main',
    protocol: 'static',
    flags: [],
    nexthops: [{ gateway: '10.232.0.1', flags: [] }],
  },
  {
    type: 'unicast',
    dst: '10.6.0.0/16',
    table: 'main',
    protocol: 'static',
    flags: [],
    via: { family: 'inet6', host: 'fe80::7' },
  },
  {
    type: 'multicast',
    dst: 'ff00::/8',
    table: 'local',
    protocol: 'kernel',
    metric: 256,
    flags: [],
    pref: 'medium',
  },
];

describe('what the kernel has on a device', () => {
  const state = parseLinkState(`${JSON.stringify([link])}\n${JSON.stringify(routes)}\n`);

  it('is its hardware', () => {
    expect(state).to.include({
      name: 'eth0',
      mac: '46:c1:fb:80:dc:19',
      mtu: 1400,
      kind: 'veth',
      linkType: 'ether',
    });
  });

  it('is its addresses, with whether their network is on the link', () => {
    expect(state.addresses).to.deep.equal([
      { ip: '10.232.0.2', prefixLength: 16, connected: false },
      { ip: '10.233.0.2', prefixLength: 24, connected: true },
      { ip: 'fd00:2::2', prefixLength: 64, connected: true },
    ]);
  });

  it('is the routes that somebody set', () => {
    const host = (ip: string, prefixLength: number): { ip: string; prefixLength: number } => ({
      ip,
      prefixLength,
    });
    expect(state.routes).to.deep.equal([
      { destination: host('0.0.0.0', 0), gateway: '10.232.0.1', onLink: false },
      {
        destination: host('10.99.0.0', 16),
        gateway: '169.254.1.1',
        onLink: true,
        metric: 7,
        mtu: 1300,
        advertisedMss: 1200,
      },
      { destination: host('10.232.0.1', 32), onLink: false },
      { destination: host('::', 0), gateway: 'fd00:2::1', onLink: false },
      { destination: host('::', 0), onLink: false, metric: 5 },
      { destination: host('10.7.0.0', 16), gateway: '10.232.0.1', onLink: false },
      { destination: host('10.6.0.0', 16), gateway: 'fe80::7', onLink: false },
    ]);
  });

  it('is an error when ip printed something else', () => {
    expect(() => parseLinkState('')).to.throw(/names no interface/);
    expect(() => parseLinkState('[{}]\n[]')).to.throw(/names no interface/);
    expect(() => parseLinkState('[{"ifname":"eth0"}]\n[]')).to.throw(/lacks address/);
    expect(() => parseLinkState('oops')).to.throw(/is not JSON/);
  });
});
