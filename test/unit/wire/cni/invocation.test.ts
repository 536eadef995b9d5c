import { expect } from 'chai';

import { parseNetworkConfig } from '../../../../lib/wire/cni/conflist.js';
import {
  formatCniArgs,
  pluginEnv,
  pluginInput,
  portMappingsCapability,
} from '../../../../lib/wire/cni/invocation.js';

const config = parseNetworkConfig(
  JSON.stringify({
    cniVersion: '1.0.0',
    name: 'net',
    plugins: [
      { type: 'bridge', name: 'liar', cniVersion: '0.1.0' },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  }),
  'a.conflist',
);
const [bridge, portmap] = config.plugins;
const target = { containerId: 'abc', netnsPath: '/run/netns/x', ifName: 'eth0', cniArgs: 'A=b' };

describe('a call of a CNI plugin', () => {
  it('gets the name and version of the list, and the arguments of the capabilities it has', () => {
    if (bridge === undefined || portmap === undefined) throw new Error('two plugins');
    const args = { portMappings: [{ hostPort: 80 }], bandwidth: {} };
    expect(pluginInput(config, bridge, args)).to.deep.equal({
      type: 'bridge',
      name: 'net',
      cniVersion: '1.0.0',
    });
    expect(pluginInput(config, portmap, args, { prevResult: { ips: [] } })).to.deep.equal({
      type: 'portmap',
      capabilities: { portMappings: true },
      name: 'net',
      cniVersion: '1.0.0',
      runtimeConfig: { portMappings: [{ hostPort: 80 }] },
      prevResult: { ips: [] },
    });
  });

  it('has the variables of the specification', () => {
    expect(pluginEnv('ADD', target, ['/a', '/b'])).to.deep.equal({
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: 'abc',
      CNI_NETNS: '/run/netns/x',
      CNI_IFNAME: 'eth0',
      CNI_ARGS: 'A=b',
      CNI_PATH: '/a:/b',
    });
  });

  it('never has a container id that could be an option or a path', () => {
    for (const containerId of ['', '-x', '../x', 'a b'])
      expect(() => pluginEnv('ADD', { ...target, containerId }, [])).to.throw(/cannot be a CNI container id/);
  });

  it('joins arguments, and refuses those that would become several', () => {
    expect(formatCniArgs({ IgnoreUnknown: '1', K8S_POD_NAME: 'web-0' })).to.equal(
      'IgnoreUnknown=1;K8S_POD_NAME=web-0',
    );
    for (const value of ['a;K8S_POD_NAMESPACE=kube-system', 'a=b', 'a\nb'])
      expect(() => formatCniArgs({ K8S_POD_NAME: value })).to.throw(/K8S_POD_NAME/);
  });

  it('publishes the ports that have a host port', () => {
    expect(
      portMappingsCapability([
        { protocol: 'TCP', containerPort: 80, hostPort: 8080, hostIp: '' },
        { protocol: 'UDP', containerPort: 53, hostPort: 0, hostIp: '' },
        { protocol: 'SCTP', containerPort: 7, hostPort: 7, hostIp: '192.0.2.1' },
      ]),
    ).to.deep.equal([
      { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
      { hostPort: 7, containerPort: 7, protocol: 'sctp', hostIP: '192.0.2.1' },
    ]);
  });
});
