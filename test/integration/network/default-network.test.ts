import { readFile, readdir } from 'node:fs/promises';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { TestHost, TestNode } from './test-host.js';

describe('the built-in network, with the plugins of this machine', () => {
  let host: TestHost;
  let node: TestNode;

  beforeEach(async () => {
    host = await TestHost.create();
    node = new TestNode(host, await host.directory());
  });

  afterEach(async () => {
    await node.dispose();
    await host.dispose();
  });

  it('gives a guest addresses of both families that the host and other guests reach', async () => {
    const [one, two] = [await node.newPod(), await node.newPod()];
    const first = await node.attach(one);
    const second = await node.attach(two);
    expect(first.ips).to.have.length(2);
    expect(first.ips[0]).to.match(new RegExp(`^10\\.${String(node.second)}\\.`));
    expect(second.ips[0]).to.not.equal(first.ips[0]);

    for (const [index, ip] of first.ips.entries()) {
      await host.serve(one.guestPath, 'tcp', ip, 8000 + index, 'guest one');
      expect(await host.ask(host.path, 'tcp', ip, 8000 + index)).to.match(/^guest one from /);
      expect(await host.ask(two.guestPath, 'tcp', ip, 8000 + index)).to.equal(
        `guest one from ${second.ips[index] ?? ''}`,
      );
    }
  });

  it('lets the guest alone answer: nothing in the namespace has the address to itself', async () => {
    const pod = await node.newPod();
    const { ips } = await node.attach(pod);
    // A server in the namespace itself, on the very address that the plugins put on eth0 there.
    await host.serve(pod.request.netnsPath, 'tcp', ips[0] ?? '', 8000, 'the namespace');
    const refused = await host
      .ask(host.path, 'tcp', ips[0] ?? '', 8000)
      .catch((error: unknown) => String(error));
    expect(refused).to.match(/ECONNREFUSED/);
    await host.serve(pod.guestPath, 'tcp', ips[0] ?? '', 8000, 'the guest');
    expect(await host.ask(host.path, 'tcp', ips[0] ?? '', 8000)).to.match(/^the guest from /);
  });

  it('gives everything back', async () => {
    const pod = await node.newPod([{ protocol: 'TCP', containerPort: 80, hostPort: 18_080, hostIp: '' }]);
    const { ips } = await node.attach(pod);
    expect(await node.leases()).to.have.members([...ips]);
    expect(await host.run('iptables-save', '-t', 'nat')).to.include(ips[0]);

    await node.network.detachGone(background(), pod.request);
    await node.network.detachGone(background(), pod.request);
    expect(await node.leases()).to.deep.equal([]);
    expect(await host.run('iptables-save', '-t', 'nat')).to.not.include(ips[0]);
    expect(await node.attachments()).to.deep.equal([]);
    expect(await host.run('ip', '-o', 'link', 'show', 'master', node.bridge)).to.equal('');
  });

  it('says that it wrote the network, and never writes where add-ons do', async () => {
    const pod = await node.newPod();
    await node.attach(pod);
    const line = node.logger.lines.find(({ message }) => message.includes('built-in'));
    expect(line?.level).to.equal('info');
    const written = await readFile(String(line?.fields['path']), 'utf8');
    expect(JSON.parse(written)).to.have.nested.property('plugins[0].bridge', node.bridge);
    expect(await readdir(node.settings.confDir).catch(() => 'none')).to.equal('none');
  });
});
