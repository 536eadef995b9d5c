import { expect } from 'chai';

import { parseErrorReport, parseResult, printable } from '../../../../lib/wire/cni/result.js';

const modern = {
  cniVersion: '1.1.0',
  interfaces: [
    { name: 'cni0', mac: '0a:00:00:00:00:01' },
    { name: 'eth0', mac: '0a:00:00:00:00:02', mtu: 1400, sandbox: '/run/netns/x' },
  ],
  ips: [
    { interface: 1, address: '10.1.0.5/16', gateway: '10.1.0.1' },
    { interface: 1, address: 'fd00::5/64' },
  ],
  routes: [
    { dst: '0.0.0.0/0' },
    { dst: '10.9.0.0/16', gw: '10.1.0.7', mtu: 1300, advmss: 1200, priority: 50, table: 0, scope: 0 },
    { dst: '169.254.1.1/32', scope: 253 },
    { dst: '10.8.0.0/16', table: 100 },
  ],
  dns: {},
};

describe('a CNI result', () => {
  it('of version 1.1 keeps addresses, and routes with their numbers', () => {
    const { result, raw } = parseResult(JSON.stringify(modern), 'x');
    expect(raw).to.deep.equal(modern);
    expect(result.interfaces[1]).to.deep.equal({
      name: 'eth0',
      mac: '0a:00:00:00:00:02',
      mtu: 1400,
      sandbox: '/run/netns/x',
    });
    expect(result.ips[0]).to.deep.equal({
      address: { ip: '10.1.0.5', prefixLength: 16 },
      gateway: '10.1.0.1',
      interface: 1,
    });
    expect(result.routes[1]).to.deep.equal({
      destination: { ip: '10.9.0.0', prefixLength: 16 },
      gateway: '10.1.0.7',
      mtu: 1300,
      advertisedMss: 1200,
      priority: 50,
      scope: 0,
    });
    expect(result.routes[3]).to.have.property('table', 100);
  });

  it('of versions 0.3 and 0.4 tells the family of an address twice', () => {
    const text =
      '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.5/16"},{"version":"6","address":"fd00::5/64"}]}';
    expect(parseResult(text, 'x').result.ips.map(({ address }) => address.ip)).to.deep.equal([
      '10.1.0.5',
      'fd00::5',
    ]);
  });

  it('of version 0.2 has one address a family, with its routes', () => {
    const text =
      '{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.5/16","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"}]},"ip6":{"ip":"fd00::5/64"}}';
    const { result } = parseResult(text, 'x');
    expect(result.ips.map(({ address }) => address.ip)).to.deep.equal(['10.1.0.5', 'fd00::5']);
    expect(result.routes).to.deep.equal([
      { destination: { ip: '0.0.0.0', prefixLength: 0 }, gateway: '10.1.0.1' },
    ]);
  });

  it('may be empty', () => {
    expect(parseResult('{"cniVersion":"1.0.0"}', 'x').result).to.deep.equal({
      interfaces: [],
      ips: [],
      routes: [],
    });
    expect(parseResult('{"ips":null,"routes":null,"interfaces":null}', 'x').result.ips).to.deep.equal([]);
  });

  const broken: [string, unknown, RegExp][] = [
    ['an address without a prefix', { ips: [{ address: '10.1.0.5' }] }, /no prefix length/],
    ['no address', { ips: [{}] }, /no address/],
    ['a false address', { ips: [{ address: '10.1.0.500/8' }] }, /not an address/],
    ['a false gateway', { ips: [{ address: '10.1.0.5/8', gateway: 'me' }] }, /not an IP address/],
    [
      'an interface that is not there',
      { ips: [{ address: '10.1.0.5/8', interface: 3 }] },
      /names interface 3, but there are 0/,
    ],
    ['a negative interface', { ips: [{ address: '10.1.0.5/8', interface: -1 }] }, /integer between 0/],
    ['a route without a destination', { routes: [{ gw: '10.1.0.1' }] }, /no dst/],
    ['a nameless interface', { interfaces: [{}] }, /no name/],
    ['a number that is text', { routes: [{ dst: '0.0.0.0/0', mtu: '1500' }] }, /mtu must be an integer/],
    ['too many addresses', { ips: Array(65).fill({ address: '10.1.0.5/8' }) }, /65 members, more than 64/],
    ['too many routes', { routes: Array(1025).fill({ dst: '10.1.0.5/8' }) }, /more than 1024/],
    ['ips of a wrong kind', { ips: {} }, /ips must be an array/],
  ];
  for (const [what, value, message] of broken)
    it(`is refused with a reason: ${what}`, () => {
      expect(() => parseResult(JSON.stringify(value), 'the result of CNI plugin x')).to.throw(message);
    });
});

describe('the error report of a plugin', () => {
  it('has a code, a message and details', () => {
    expect(
      parseErrorReport('{"cniVersion":"1.0.0","code":11,"msg":"later","details":"busy\\nline"}'),
    ).to.deep.equal({
      code: 11,
      message: 'later',
      details: 'busy line',
    });
  });

  it('is nothing when the output is something else', () => {
    for (const text of ['', '<html>', '[]', '{"code":"1","msg":"x"}', '{"code":1}'])
      expect(parseErrorReport(text)).to.equal(undefined);
  });

  it('is bounded and on one line', () => {
    expect(printable(`a\u001b[31m\r\n${'x'.repeat(10_000)}`)).to.have.length(2048);
    expect(printable('a\u0000\u001bb\n')).to.equal('a b');
  });
});
