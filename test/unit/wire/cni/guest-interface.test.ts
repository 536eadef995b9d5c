import { expect } from 'chai';

import type { GuestInterface } from '../../../../lib/model/network.js';
import { attachmentFrom } from '../../../../lib/wire/cni/guest-interface.js';
import type { LinkState } from '../../../../lib/wire/cni/link-state.js';
import { normaliseResult } from '../../../../lib/wire/cni/result.js';

const sandbox = '/run/netns/x';
const eth0 = { name: 'eth0', mac: '0a:00:00:00:00:02', sandbox };

function link(changes: Partial<LinkState> = {}): LinkState {
  return {
    name: 'eth0',
    mac: '0A:00:00:00:00:02',
    mtu: 1500,
    kind: 'veth',
    linkType: 'ether',
    flags: new Set(['UP']),
    addresses: [],
    routes: [],
    ...changes,
  };
}

function guest(result: Record<string, unknown>, state: LinkState = link()): GuestInterface {
  const [first] = attachmentFrom(normaliseResult(result, 'result'), state).interfaces;
  if (first === undefined) throw new Error('one interface');
  return first;
}

describe('the interface of a guest', () => {
  it('has the MAC address and the MTU of the device in the namespace', () => {
    const one = guest({ ips: [{ address: '10.1.0.5/16' }] }, link({ mtu: 8900 }));
    expect(one).to.include({ name: 'eth0', mac: '0a:00:00:00:00:02', mtu: 8900 });
  });

  it('has the addresses in the order of the result: the first is the primary one', () => {
    const attachment = attachmentFrom(
      normaliseResult({ ips: [{ address: 'fd00::5/64' }, { address: '10.1.0.5/16' }] }, 'result'),
      link({
        addresses: [
          { ip: '10.1.0.5', prefixLength: 16, connected: true },
          { ip: 'fd00:0::5', prefixLength: 64, connected: true },
          { ip: '10.2.0.5', prefixLength: 24, connected: true },
        ],
      }),
    );
    expect(attachment.ips).to.deep.equal(['fd00:0::5', '10.1.0.5', '10.2.0.5']);
  });

  it('has only the addresses of its own device', () => {
    const one = guest({
      interfaces: [{ name: 'cni0' }, eth0, { name: 'net1', sandbox }],
      ips: [
        { interface: 0, address: '10.1.0.1/16' },
        { interface: 1, address: '10.1.0.5/16' },
        { interface: 2, address: '10.2.0.5/16' },
      ],
    });
    expect(one.addresses).to.deep.equal([{ ip: '10.1.0.5', prefixLength: 16 }]);
  });

  it('without an address is an error that says where to look', () => {
    expect(() => guest({})).to.throw(/gave eth0 no address; check the ipam section/);
  });

  it('sends a route without a gateway through the gateway of its family', () => {
    const one = guest({
      ips: [
        { address: '10.1.0.5/16', gateway: '10.1.0.1' },
        { address: 'fd00::5/64', gateway: 'fd00::1' },
      ],
      routes: [{ dst: '::/0' }, { dst: '0.0.0.0/0' }],
    });
    expect(one.routes).to.deep.equal([
      { destination: '::/0', gateway: 'fd00::1', onLink: false },
      { destination: '0.0.0.0/0', gateway: '10.1.0.1', onLink: false },
    ]);
  });

  it('takes MTU, segment size and priority of a CNI 1.1 route along', () => {
    const one = guest({
      ips: [{ address: '10.1.0.5/16', gateway: '10.1.0.1' }],
      routes: [{ dst: '10.9.0.0/16', gw: '10.1.0.7', mtu: 1300, advmss: 1200, priority: 50 }],
    });
    expect(one.routes).to.deep.equal([
      {
        destination: '10.9.0.0/16',
        gateway: '10.1.0.7',
        onLink: false,
        mtu: 1300,
        metric: 50,
        advertisedMss: 1200,
      },
    ]);
  });

  it('marks a gateway that nothing covers as on the link', () => {
    const one = guest({
      ips: [{ address: '10.1.0.5/32', gateway: '169.254.1.1' }],
      routes: [{ dst: '0.0.0.0/0' }],
    });
    expect(one.routes).to.deep.equal([{ destination: '0.0.0.0/0', gateway: '169.254.1.1', onLink: true }]);
  });

  it('puts the route to a link-local gateway before the default route through it (calico)', () => {
    const one = guest(
      { interfaces: [{ name: 'cali1' }], ips: [{ address: '192.168.3.7/32' }] },
      link({
        addresses: [{ ip: '192.168.3.7', prefixLength: 32, connected: true }],
        routes: [
          { destination: { ip: '0.0.0.0', prefixLength: 0 }, gateway: '169.254.1.1', onLink: false },
          { destination: { ip: '169.254.1.1', prefixLength: 32 }, onLink: false },
        ],
      }),
    );
    expect(one.addresses).to.deep.equal([{ ip: '192.168.3.7', prefixLength: 32 }]);
    expect(one.routes).to.deep.equal([
      { destination: '169.254.1.1/32', onLink: false },
      { destination: '0.0.0.0/0', gateway: '169.254.1.1', onLink: false },
    ]);
  });

  it('reaches an IPv6 link-local gateway without a mark', () => {
    const one = guest({ ips: [{ address: 'fd00::5/128', gateway: 'fe80::1' }], routes: [{ dst: '::/0' }] });
    expect(one.routes).to.deep.equal([{ destination: '::/0', gateway: 'fe80::1', onLink: false }]);
  });

  it('takes an on-link route of CNI 1.1 as such', () => {
    const one = guest({
      ips: [{ address: '10.1.0.5/32', gateway: '169.254.1.1' }],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '169.254.1.1/32', scope: 253 }],
    });
    expect(one.routes).to.deep.equal([
      { destination: '169.254.1.1/32', onLink: false },
      { destination: '0.0.0.0/0', gateway: '169.254.1.1', onLink: false },
    ]);
  });

  it('makes a host address of one whose network was taken off the link (ptp)', () => {
    const one = guest(
      { ips: [{ address: '10.232.0.2/16', gateway: '10.232.0.1' }], routes: [{ dst: '0.0.0.0/0' }] },
      link({
        addresses: [{ ip: '10.232.0.2', prefixLength: 16, connected: false }],
        routes: [
          { destination: { ip: '0.0.0.0', prefixLength: 0 }, gateway: '10.232.0.1', onLink: false },
          { destination: { ip: '10.232.0.0', prefixLength: 16 }, gateway: '10.232.0.1', onLink: false },
          { destination: { ip: '10.232.0.1', prefixLength: 32 }, onLink: false },
        ],
      }),
    );
    expect(one.addresses).to.deep.equal([{ ip: '10.232.0.2', prefixLength: 32 }]);
    expect(one.routes.map(({ destination }) => destination)).to.deep.equal([
      '10.232.0.1/32',
      '0.0.0.0/0',
      '10.232.0.0/16',
    ]);
    expect(one.routes.every(({ onLink }) => !onLink)).to.equal(true);
  });

  it('names no route twice, whether the kernel or the result tells it', () => {
    const one = guest(
      {
        ips: [{ address: 'fd00::5/64', gateway: 'fd00::1' }],
        routes: [
          { dst: '::/0' },
          { dst: '0:0::/0' },
          { dst: 'fd00:9::/32' },
          { dst: 'fd00::/64', scope: 253 },
        ],
      },
      link({
        routes: [
          { destination: { ip: '::', prefixLength: 0 }, gateway: 'fd00::1', onLink: false, metric: 7 },
        ],
      }),
    );
    expect(one.routes).to.deep.equal([
      { destination: '::/0', gateway: 'fd00::1', onLink: false, metric: 7 },
      { destination: 'fd00:9::/32', gateway: 'fd00::1', onLink: false },
    ]);
  });

  it('leaves routes of other tables and of families without an address out', () => {
    const one = guest({
      ips: [{ address: '10.1.0.5/16', gateway: '10.1.0.1' }],
      routes: [
        { dst: '10.9.0.0/16', table: 100 },
        { dst: '::/0', gw: 'fe80::1' },
      ],
    });
    expect(one.routes).to.deep.equal([]);
  });
});
