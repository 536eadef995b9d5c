import { expect } from 'chai';

import {
  formatNetworkConfig,
  fromList,
  parseNetworkConfig,
  takesCapability,
} from '../../../../lib/wire/cni/conflist.js';

function list(changes: Record<string, unknown> = {}): string {
  return JSON.stringify({
    cniVersion: '1.0.0',
    name: 'net',
    plugins: [{ type: 'bridge', mtu: 1400 }],
    ...changes,
  });
}

describe('a CNI network configuration', () => {
  it('is a list of plugins, in order, with what they hold', () => {
    const plugins = [
      { type: 'bridge', mtu: 1400 },
      { type: 'portmap', capabilities: { portMappings: true, ips: false } },
    ];
    const config = parseNetworkConfig(list({ plugins }), '/etc/cni/net.d/10-a.conflist');
    expect(config.plugins.map(({ type }) => type)).to.deep.equal(['bridge', 'portmap']);
    expect(config.plugins[0]?.raw).to.deep.equal(plugins[0]);
    expect(takesCapability(config, 'portMappings')).to.equal(true);
    expect(takesCapability(config, 'ips')).to.equal(false);
  });

  it('may be a single plugin', () => {
    const config = parseNetworkConfig('{"cniVersion":"0.3.1","name":"n","type":"ptp","x":1}', 'a.conf');
    expect(config.plugins).to.have.length(1);
    expect(config.plugins[0]?.raw).to.have.property('x', 1);
  });

  it('goes through a cache unchanged', () => {
    const config = parseNetworkConfig(list({ disableGC: true, cniVersion: '1.1.0' }), 'a.conflist');
    const again = fromList(
      JSON.parse(JSON.stringify(formatNetworkConfig(config))) as Record<string, unknown>,
      'cache',
    );
    expect(again).to.deep.equal(config);
  });

  it('takes the newest version that both sides know', () => {
    const parse = (changes: Record<string, unknown>): string =>
      parseNetworkConfig(list(changes), 'a.conflist').cniVersion;
    expect(parse({ cniVersions: ['0.4.0', '1.1.0', '2.0.0'] })).to.equal('1.1.0');
    expect(parse({ cniVersions: ['9.0.0'] })).to.equal('1.0.0');
    for (const version of ['0.3.1', '0.4.0', '1.0.0', '1.1.0'])
      expect(parse({ cniVersion: version })).to.equal(version);
  });

  const broken: [string, string, string, RegExp][] = [
    ['bad JSON', '{\n "name": "x",\n oops }', 'a.conflist', /^a\.conflist \(line 3, column 2\) is not JSON$/],
    ['cut-off JSON', '{\n "name": [', 'a.conflist', /line 2.* is not JSON/],
    ['nothing', ' \n', 'a.conflist', /a\.conflist is empty/],
    ['an array', '[]', 'a.conflist', /must be a JSON object/],
    ['no plugins', list({ plugins: [] }), 'a.conflist', /at least one plugin/],
    ['plugins of a wrong kind', list({ plugins: 'bridge' }), 'a.conflist', /plugins must be an array/],
    [
      'too many plugins',
      list({ plugins: Array(33).fill({ type: 'x' }) }),
      'a.conflist',
      /33 members, more than 32/,
    ],
    ['a plugin without a type', list({ plugins: [{}] }), 'a.conflist', /plugins\[0\]: type is missing/],
    [
      'a type with a slash',
      list({ plugins: [{ type: '../../bin/sh' }] }),
      'a.conflist',
      /is not the name of a plugin/,
    ],
    ['a type of two dots', list({ plugins: [{ type: '..' }] }), 'a.conflist', /is not the name of a plugin/],
    ['no name', list({ name: undefined }), 'a.conflist', /name is missing/],
    ['a name that is a path', list({ name: '../x' }), 'a.conflist', /may only hold/],
    ['no version', list({ cniVersion: undefined }), 'a.conflist', /cniVersion is missing/],
    [
      'an unknown version',
      list({ cniVersion: '3.0.0' }),
      'a.conflist',
      /3\.0\.0 is not supported; supported are/,
    ],
    ['an ancient version', list({ cniVersion: '0.2.0' }), 'a.conflist', /0\.2\.0 is not supported/],
    ['a list in a .conf', list(), 'a.conf', /end with \.conflist/],
    [
      'capabilities of a wrong kind',
      list({ plugins: [{ type: 'a', capabilities: [] }] }),
      'a.conflist',
      /JSON object/,
    ],
    ['a megabyte', `{"x":"${'x'.repeat(1024 * 1024)}"}`, 'a.conflist', /larger than 1048576 bytes/],
  ];
  for (const [what, text, file, message] of broken)
    it(`is refused with a reason: ${what}`, () => {
      expect(() => parseNetworkConfig(text, file))
        .to.throw(message)
        .with.property('class', 'InvalidArgument');
    });
});
