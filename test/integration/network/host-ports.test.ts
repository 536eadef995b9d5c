import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import type { PortMapping } from '../../../lib/model/sandbox.js';
import { TestHost, TestNode } from './test-host.js';

const tcp: PortMapping = { protocol: 'TCP', containerPort: 80, hostPort: 18_080, hostIp: '' };
const udp: PortMapping = { protocol: 'UDP', containerPort: 53, hostPort: 18_053, hostIp: '' };

describe('published ports, with the plugins of this machine', () => {
  let host: TestHost;
  let node: TestNode;
  let neighbour: string;

  beforeEach(async () => {
    host = await TestHost.create();
    node = new TestNode(host, await host.directory());
    neighbour = await host.addNeighbour();
  });

  afterEach(async () => {
    await node.dispose();
    await host.dispose();
  });

  it('are reachable from 127.0.0.1, from another machine, and from the pod itself', async () => {
    const pod = await node.newPod([tcp]);
    await node.attach(pod);
    await host.serve(pod.guestPath, 'tcp', '0.0.0.0', 80, 'web');
    expect(await host.ask(host.path, 'tcp', '127.0.0.1', 18_080)).to.match(/^web from /);
    // The address of the asker is kept: only local and hairpin traffic is masqueraded.
    expect(await host.ask(neighbour, 'tcp', '192.0.2.1', 18_080)).to.equal('web from 192.0.2.2');
    expect(await host.ask(pod.guestPath, 'tcp', '192.0.2.1', 18_080)).to.match(/^web from /);
  });

  it('are closed when the pod is gone', async () => {
    const pod = await node.newPod([tcp]);
    await node.attach(pod);
    await host.serve(pod.guestPath, 'tcp', '0.0.0.0', 80, 'web');
    expect(await host.ask(host.path, 'tcp', '127.0.0.1', 18_080)).to.match(/^web from /);
    await node.network.detachGone(background(), pod.request);
    for (const [from, address] of [
      [host.path, '127.0.0.1'],
      [neighbour, '192.0.2.1'],
    ] as const)
      expect(await host.ask(from, 'tcp', address, 18_080).catch(String)).to.match(/ECONNREFUSED/);
  });

  it('of UDP follow from one pod to the next for a client that never changes its port', async () => {
    const first = await node.newPod([udp]);
    await node.attach(first);
    await host.serve(first.guestPath, 'udp', '0.0.0.0', 53, 'first');
    expect(await host.ask(neighbour, 'udp', '192.0.2.1', 18_053, 40_000)).to.equal('first from 192.0.2.2');
    expect(await host.ask(host.path, 'udp', '127.0.0.1', 18_053)).to.match(/^first from /);
    await node.network.detachGone(background(), first.request);
    // A datagram in between makes a connection entry without a translation, which must not stick.
    expect(await host.ask(neighbour, 'udp', '192.0.2.1', 18_053, 40_000).catch(String)).to.match(
      /exit code 1/,
    );

    const second = await node.newPod([udp]);
    await node.attach(second);
    await host.serve(second.guestPath, 'udp', '0.0.0.0', 53, 'second');
    expect(await host.ask(neighbour, 'udp', '192.0.2.1', 18_053, 40_000)).to.equal('second from 192.0.2.2');
  });

  it('keep to the host address that they name', async () => {
    const pod = await node.newPod([{ ...tcp, hostIp: '192.0.2.1' }]);
    await node.attach(pod);
    await host.serve(pod.guestPath, 'tcp', '0.0.0.0', 80, 'web');
    expect(await host.ask(neighbour, 'tcp', '192.0.2.1', 18_080)).to.equal('web from 192.0.2.2');
    expect(await host.ask(host.path, 'tcp', '127.0.0.1', 18_080).catch(String)).to.match(/ECONNREFUSED/);
  });

  it('on 0.0.0.0 are on every address', async () => {
    const pod = await node.newPod([{ ...tcp, hostIp: '0.0.0.0' }]);
    await node.attach(pod);
    await host.serve(pod.guestPath, 'tcp', '0.0.0.0', 80, 'web');
    expect(await host.ask(neighbour, 'tcp', '192.0.2.1', 18_080)).to.equal('web from 192.0.2.2');
    expect(await host.ask(host.path, 'tcp', '127.0.0.1', 18_080)).to.match(/^web from /);
  });
});
