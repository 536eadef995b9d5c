import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { FakePlugins, behave, printing } from '../../fakes/cni-plugin.js';
import { TestHost, TestNode, debianBinDirs } from './test-host.js';

describe('networks of other plugins than bridge', () => {
  let host: TestHost;
  let node: TestNode;
  let plugins: FakePlugins;

  beforeEach(async () => {
    host = await TestHost.create();
    const directory = await host.directory();
    plugins = await FakePlugins.create(directory);
    node = new TestNode(host, directory, { binDirs: [plugins.binDir, ...debianBinDirs] });
  });

  afterEach(async () => {
    await node.dispose();
    await host.dispose();
  });

  async function configure(plugin: Record<string, unknown>): Promise<void> {
    await mkdir(node.settings.confDir, { recursive: true });
    const config = { cniVersion: '1.0.0', name: 'kind', plugins: [plugin] };
    await writeFile(join(node.settings.confDir, '10-kind.conflist'), JSON.stringify(config));
  }

  function hostLocal(): Record<string, unknown> {
    return {
      type: 'host-local',
      dataDir: join(node.settings.stateDir, 'ipam'),
      ranges: [[{ subnet: node.subnet4 }], [{ subnet: node.subnet6 }]],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
    };
  }

  it('ptp: guests reach the host and one another, though no neighbour is on their link', async () => {
    await configure({ type: 'ptp', mtu: 1400, ipam: hostLocal() });
    const [one, two] = [await node.newPod(), await node.newPod()];
    const first = await node.attach(one);
    const second = await node.attach(two);
    expect(first.interfaces[0]?.mtu).to.equal(1400);
    for (const [index, ip] of first.ips.entries()) {
      await host.serve(one.guestPath, 'tcp', ip, 8000 + index, 'one');
      expect(await host.ask(host.path, 'tcp', ip, 8000 + index)).to.match(/^one from /);
      expect(await host.ask(two.guestPath, 'tcp', ip, 8000 + index)).to.equal(
        `one from ${second.ips[index] ?? ''}`,
      );
    }
  });

  it('macvlan: the guest is a machine of its own on the host’s wire', async () => {
    const neighbour = await host.addNeighbour();
    await host.runIn(neighbour, 'ip', 'address', 'add', `10.${String(node.second)}.255.1/16`, 'dev', 'wire1');
    await configure({ type: 'macvlan', master: 'wire0', ipam: hostLocal() });
    const pod = await node.newPod();
    const { ips } = await node.attach(pod);
    await host.serve(pod.guestPath, 'tcp', ips[0] ?? '', 8000, 'macvlan');
    expect(await host.ask(neighbour, 'tcp', ips[0] ?? '', 8000)).to.equal(
      `macvlan from 10.${String(node.second)}.255.1`,
    );
    await node.network.detachGone(background(), pod.request);
  });

  it('an add-on of calico’s kind: a host address, and a gateway that only a route on the link reaches', async () => {
    const ip = `10.${String(node.second)}.7.9`;
    const inPod = 'nsenter --net="$CNI_NETNS" ip';
    await plugins.add('calicolike', {
      ADD: [
        `${inPod} link add eth0 type veth peer name cali0`,
        // The host's namespace is reached as the plugin's own.
        `${inPod} link set cali0 netns $$`,
        `${inPod} link set eth0 mtu 1440 up`,
        `${inPod} address add ${ip}/32 dev eth0`,
        `${inPod} route add 169.254.1.1 dev eth0 scope link`,
        `${inPod} route add default via 169.254.1.1 dev eth0`,
        'ip link set cali0 up',
        'sysctl -q -w net.ipv4.conf.cali0.proxy_arp=1 net.ipv4.ip_forward=1 net.ipv4.neigh.cali0.proxy_delay=0',
        `ip route add ${ip} dev cali0 scope link`,
        // As calico: no interface of the pod, no gateway, no route.
        printing({ cniVersion: '1.0.0', interfaces: [{ name: 'cali0' }], ips: [{ address: `${ip}/32` }] }),
      ].join('\n'),
      DEL: 'ip link delete cali0',
    });
    await configure({ type: 'calicolike' });
    const neighbour = await host.addNeighbour();
    await host.runIn(neighbour, 'ip', 'route', 'add', 'default', 'via', '192.0.2.1');
    // A proxy answers ARP for what it would route elsewhere.
    await host.run('ip', 'route', 'add', 'default', 'via', '192.0.2.2');
    const pod = await node.newPod();
    const attachment = await node.attach(pod);
    expect(attachment.interfaces[0]?.addresses).to.deep.equal([{ ip, prefixLength: 32 }]);
    expect(attachment.interfaces[0]?.mtu).to.equal(1440);
    await host.serve(neighbour, 'tcp', '192.0.2.2', 8000, 'outside');
    expect(await host.ask(pod.guestPath, 'tcp', '192.0.2.2', 8000)).to.equal(`outside from ${ip}`);
    await node.network.detachGone(background(), pod.request);
  });

  it('one that says it has an interface and makes none: an error, nothing kept', async () => {
    await plugins.add('liar', { ADD: behave.result });
    await configure({ type: 'liar' });
    const pod = await node.newPod();
    const error: unknown = await node.network
      .attach(background(), pod.request)
      .catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('the CNI plugins made no eth0');
    expect(await plugins.sequence()).to.deep.equal(['liar ADD', 'liar DEL']);
    expect(await node.attachments()).to.deep.equal([]);
  });
});
