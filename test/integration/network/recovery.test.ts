import { mkdir, readFile, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { FakePlugins, behave } from '../../fakes/cni-plugin.js';
import { TestHost, TestNode, debianBinDirs } from './test-host.js';

const port = { protocol: 'TCP', containerPort: 80, hostPort: 18_080, hostIp: '' } as const;

describe('a network that was left half done, with the plugins of this machine', () => {
  let host: TestHost;
  let node: TestNode;
  let plugins: FakePlugins;

  beforeEach(async () => {
    host = await TestHost.create();
    const directory = await host.directory();
    plugins = await FakePlugins.create(directory);
    // Debian's plugins, of which a test may replace one.
    for (const name of ['bridge', 'host-local', 'portmap', 'ptp'])
      await symlink(join(await binDir(name), name), join(plugins.binDir, name));
    node = new TestNode(host, directory, { binDirs: [plugins.binDir] });
  });

  afterEach(async () => {
    await node.dispose();
    await host.dispose();
  });

  /** Puts a fake in a real plugin's place. */
  async function replace(name: string, behaviour: Record<string, string>): Promise<void> {
    await unlink(join(plugins.binDir, name));
    await plugins.add(name, behaviour);
  }

  async function nothingLeft(ips: readonly string[] = []): Promise<void> {
    expect(await node.leases()).to.deep.equal([]);
    expect(await node.attachments()).to.deep.equal([]);
    expect(await host.run('ip', '-o', 'link', 'show', 'type', 'veth')).to.not.include(node.bridge);
    for (const family of ['iptables-save', 'ip6tables-save']) {
      const rules = await host.run(family, '-t', 'nat');
      expect(rules).to.not.include(node.settings.defaultNetwork?.name);
      for (const ip of ips) expect(rules).to.not.include(ip);
    }
  }

  it('gives the address back when the second plugin of the chain fails', async () => {
    await replace('portmap', { ADD: behave.error(100, 'no rules today'), DEL: behave.ok });
    const pod = await node.newPod([port]);
    const error: unknown = await node.network
      .attach(background(), pod.request)
      .catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('portmap (ADD): no rules today (see the log), code 100');
    expect(await plugins.sequence()).to.deep.equal(['portmap ADD', 'portmap DEL']);
    await nothingLeft();
  });

  it('gives the address back when the caller gives up in the middle', async () => {
    await replace('portmap', { ADD: behave.hangWithChild });
    const pod = await node.newPod([port]);
    const ctx = withCancel(background());
    const attaching = node.network.attach(ctx, pod.request).catch((thrown: unknown) => thrown);
    while (!(await plugins.sequence()).includes('portmap ADD')) await setTimeout(20);
    expect(await node.leases()).to.not.deep.equal([]);
    ctx.cancel();
    expect(String(await attaching)).to.include('cancelled');
    await nothingLeft();
  });

  it('is found and undone by the daemon that comes after a kill between ADD and its record', async () => {
    const pod = await node.newPod([port]);
    await node.attach(pod);
    // The state a kill leaves: plugins done, the record still says what was intended.
    const path = join(node.settings.stateDir, 'attachments', `${pod.request.sandboxId}.json`);
    const record = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
    delete record['result'];
    await writeFile(path, JSON.stringify({ ...record, phase: 'adding' }));
    node.restart();
    await node.network.detachGone(background(), pod.request);
    await nothingLeft();
  });

  it('does not come back when a plugin outlived the daemon that started it', async () => {
    const marker = join(node.directory, 'late');
    await replace('portmap', { ADD: `sleep 1000; touch ${marker}` });
    const pod = await node.newPod([port]);
    const killed = withCancel(background());
    node.network.attach(killed, pod.request).catch(() => undefined);
    while (!(await plugins.sequence()).includes('portmap ADD')) await setTimeout(20);
    // The next daemon knows nothing but the file; the plugin of the one before still sleeps.
    node.restart();
    await node.network.detachGone(background(), pod.request);
    const alive = await host.run(
      'sh',
      '-c',
      `grep -lz CNI_CONTAINERID=${pod.request.sandboxId} /proc/[0-9]*/environ || true`,
    );
    expect(alive).to.equal('');
    await nothingLeft();
  });

  for (const kind of ['bridge', 'ptp'])
    it(`leaves no rule behind when the namespace is gone (${kind})`, async () => {
      if (kind === 'ptp') await configurePtp(node);
      const pod = await node.newPod([port]);
      const { ips } = await node.attach(pod);
      expect(await host.run('iptables-save', '-t', 'nat')).to.include(ips[0]);
      await node.factory.deleteGone(background(), pod.name);
      node.restart();
      await node.network.detachGone(background(), pod.request);
      await nothingLeft(ips);
      expect(await node.factory.list()).to.deep.equal([]);
    });

  it('of unknown sandboxes is collected, of known ones it is kept', async () => {
    const [known, unknown] = [await node.newPod(), await node.newPod()];
    const { ips } = await node.attach(known);
    await node.attach(unknown);
    node.restart();
    await node.network.collectGarbage(background(), new Set([known.request.sandboxId]));
    expect(await node.leases()).to.have.members([...ips]);
    expect(await node.attachments()).to.deep.equal([`${known.request.sandboxId}.json`]);
    await host.serve(known.guestPath, 'tcp', '0.0.0.0', 80, 'still here');
    expect(await host.ask(host.path, 'tcp', ips[0] ?? '', 80)).to.match(/^still here/);
  });

  it('of one daemon is not touched by another on the same host', async () => {
    const other = new TestNode(host, await host.directory());
    try {
      const [mine, theirs] = [await node.newPod(), await other.newPod()];
      const first = await node.attach(mine);
      const second = await other.attach(theirs);
      await other.network.collectGarbage(background(), new Set());
      await other.dispose();
      expect(await other.leases()).to.deep.equal([]);
      expect(await node.leases()).to.have.members([...first.ips]);
      expect(await node.factory.list()).to.deep.equal([mine.name]);
      await host.serve(mine.guestPath, 'tcp', '0.0.0.0', 80, 'mine');
      expect(await host.ask(host.path, 'tcp', first.ips[0] ?? '', 80)).to.match(/^mine/);
      expect(await host.run('iptables-save', '-t', 'nat')).to.not.include(second.ips[0]);
    } finally {
      await other.dispose();
    }
  });

  it('can be attached again under the same id', async () => {
    const pod = await node.newPod();
    await node.attach(pod);
    node.restart();
    await host.runIn(pod.guestPath, 'ip', 'link', 'set', 'eth0', 'down', 'name', 'peer0');
    await host.runIn(pod.guestPath, 'ip', 'address', 'flush', 'dev', 'peer0');
    await node.network.detachGone(background(), pod.request);
    const { ips } = await node.attach(pod);
    expect(await node.leases()).to.have.members([...ips]);
    await host.serve(pod.guestPath, 'tcp', '0.0.0.0', 80, 'again');
    expect(await host.ask(host.path, 'tcp', ips[0] ?? '', 80)).to.match(/^again/);
  });
});

async function binDir(name: string): Promise<string> {
  for (const directory of debianBinDirs)
    if ((await readFile(join(directory, name)).catch(() => undefined)) !== undefined) return directory;
  throw new Error(`CNI plugin ${name} is not installed; install the package containernetworking-plugins`);
}

async function configurePtp(node: TestNode): Promise<void> {
  await mkdir(node.settings.confDir, { recursive: true });
  const config = {
    cniVersion: '1.0.0',
    name: node.settings.defaultNetwork?.name,
    plugins: [
      {
        type: 'ptp',
        ipMasq: true,
        mtu: 1400,
        ipam: {
          type: 'host-local',
          dataDir: join(node.settings.stateDir, 'ipam'),
          ranges: [[{ subnet: node.subnet4 }], [{ subnet: node.subnet6 }]],
          routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
        },
      },
    ],
  };
  await writeFile(join(node.settings.confDir, '10-ptp.conflist'), JSON.stringify(config));
}
