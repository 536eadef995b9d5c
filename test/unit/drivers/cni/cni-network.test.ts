import { readFile, writeFile } from 'node:fs/promises';

import { expect } from 'chai';

import { background, withTimeout } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import { behave } from '../../../fakes/cni-plugin.js';
import { Scene } from './scene.js';

const published = { protocol: 'TCP', containerPort: 80, hostPort: 8080, hostIp: '' } as const;

describe('a pod’s network', () => {
  let scene: Scene;

  beforeEach(async () => {
    scene = await Scene.create();
  });

  afterEach(() => scene.dispose());

  it('is made by the chain, each plugin with the result of the one before', async () => {
    const request = scene.request({ portMappings: [published] });
    const attachment = await scene.network().attach(background(), request);
    expect(attachment.ips).to.deep.equal(['10.1.0.5']);
    const [first, second] = await scene.plugins.calls();
    expect(first?.input).to.not.have.any.keys('prevResult', 'runtimeConfig');
    expect(second?.input).to.have.nested.property('prevResult.ips[0].address', '10.1.0.5/16');
    expect(second?.input).to.have.nested.property('runtimeConfig.portMappings[0].hostPort', 8080);
    expect(first?.env['CNI_ARGS']).to.equal(
      `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=${request.sandboxId};K8S_POD_UID=u-1`,
    );
  });

  it('redirects both ways, and raises the MTU of the tap when the pod’s device has a larger one', async () => {
    const attach = async () => {
      await scene.network().attach(background(), scene.request());
      return scene.exec.runs.map(({ input }) => input).join('');
    };
    const inputs = await attach();
    expect(inputs).not.to.include('link set');
    scene.exec.linkOutput = scene.exec.linkOutput.replace('"mtu":1400', '"mtu":9000');
    expect(await attach()).to.include('link set dev tap0 mtu 9000\n');
    expect(inputs).to.match(/filter replace dev eth0 .* redirect dev tap0\n/);
    expect(inputs).to.match(/filter replace dev tap0 .* redirect dev eth0\n/);
  });

  it('is on disk as an intent before the first plugin runs', async () => {
    const request = scene.request();
    await scene.plugins.add('first', {
      ADD: `cp ${scene.attachmentPath(request.sandboxId)} ${scene.directory}/seen; ${behave.result}`,
    });
    await scene.network().attach(background(), request);
    expect(JSON.parse(await readFile(`${scene.directory}/seen`, 'utf8'))).to.include({ phase: 'adding' });
    expect(JSON.parse(await readFile(scene.attachmentPath(request.sandboxId), 'utf8'))).to.include({
      phase: 'added',
    });
  });

  it('is given back last plugin first, with the cached result and the configuration of then', async () => {
    const request = scene.request({ portMappings: [published] });
    await scene.network().attach(background(), request);
    await scene.configure('10-net.conflist', { name: 'other', plugins: [{ type: 'third' }] });
    await scene.network().detachGone(background(), { ...request, portMappings: [] });
    const [, , del, last] = await scene.plugins.calls();
    expect([del?.plugin, last?.plugin]).to.deep.equal(['second', 'first']);
    expect(del?.input).to.have.property('name', 'net');
    expect(del?.input).to.have.nested.property('prevResult.ips[0].address', '10.1.0.5/16');
    expect(del?.input).to.have.nested.property('runtimeConfig.portMappings[0].hostPort', 8080);
    expect(del?.env['CNI_NETNS']).to.equal('/proc/self/ns/net');
  });

  it('is given back without a namespace too', async () => {
    const request = scene.request();
    await scene.network().attach(background(), request);
    await scene.network().detachGone(background(), { ...request, netnsPath: '/run/netns/gone' });
    expect((await scene.plugins.calls()).at(-1)?.env['CNI_NETNS']).to.equal('');
  });

  it('is given back once: the second time there is nothing to do', async () => {
    const [network, request] = [scene.network(), scene.request()];
    await network.detachGone(background(), request);
    await network.attach(background(), request);
    await network.detachGone(background(), request);
    await network.detachGone(background(), request);
    expect(await scene.plugins.sequence()).to.deep.equal([
      'first ADD',
      'second ADD',
      'second DEL',
      'first DEL',
    ]);
  });

  it('is given back by the other plugins when one cannot, and again the next time', async () => {
    const [network, request] = [scene.network(), scene.request()];
    await network.attach(background(), request);
    await scene.plugins.add('second', { DEL: behave.error(100, 'not now') });
    const error: unknown = await network.detachGone(background(), request).catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('second (DEL): not now');
    expect((await scene.plugins.sequence()).slice(2)).to.deep.equal(['second DEL', 'first DEL']);
    await scene.plugins.add('second');
    await network.detachGone(background(), request);
    expect((await scene.plugins.sequence()).slice(4)).to.deep.equal(['second DEL', 'first DEL']);
  });

  const misbehaviours = {
    'an error': behave.error(100, 'no'),
    garbage: behave.garbage,
    'garbage that it calls a success': behave.garbageSuccess,
    'an empty success': 'true',
    'output without end': behave.huge,
  };
  for (const [what, lines] of Object.entries(misbehaviours))
    it(`is undone by the whole chain when the second plugin answers ${what}`, async () => {
      await scene.plugins.add('second', { ADD: lines });
      const error: unknown = await scene
        .network()
        .attach(background(), scene.request())
        .catch((thrown: unknown) => thrown);
      expect(error).to.be.instanceOf(HerkosError);
      expect((await scene.plugins.sequence()).slice(1)).to.deep.equal([
        'second ADD',
        'second DEL',
        'first DEL',
      ]);
    });

  it('is undone when a plugin hangs', async () => {
    await scene.plugins.add('second', { ADD: behave.hang });
    const ctx = withTimeout(background(), 500, 'the request');
    const error: unknown = await scene
      .network()
      .attach(ctx, scene.request())
      .catch((thrown: unknown) => thrown);
    expect(error).to.have.property('class', 'DeadlineExceeded');
    expect((await scene.plugins.sequence()).slice(2)).to.deep.equal(['second DEL', 'first DEL']);
  });

  it('says so when the plugins made no device for it', async () => {
    scene.exec.failWhen = (run) =>
      run.args.includes('-json') ? new Error('ip failed: Device "eth0" does not exist.') : undefined;
    const error: unknown = await scene
      .network()
      .attach(background(), scene.request())
      .catch((thrown: unknown) => thrown);
    expect(error).to.have.property('class', 'FailedPrecondition');
    expect(String(error)).to.include('the CNI plugins made no eth0');
  });

  it('is undone when the redirects fail, and says so when that fails too', async () => {
    scene.exec.failWhen = (run) => (run.args.includes('tc') ? new Error('no mirred here') : undefined);
    await scene.plugins.add('first', { ADD: behave.result, DEL: behave.error(100, 'stuck') });
    const request = scene.request();
    const error: unknown = await scene
      .network()
      .attach(background(), request)
      .catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('no mirred here').and.to.include('first (DEL): stuck');
    expect(await readFile(scene.attachmentPath(request.sandboxId), 'utf8')).to.include('"added"');
  });

  for (const [kind, change] of [
    ['ipvlan', { linkinfo: { info_kind: 'ipvlan' } }],
    ['a tunnel', { link_type: 'none' }],
    ['a device without ARP', { flags: ['UP', 'NOARP'] }],
  ] as const)
    it(`is refused on ${kind}, with advice`, async () => {
      const [link = '', routes = ''] = scene.exec.linkOutput.split('\n');
      const [device] = JSON.parse(link) as [Record<string, unknown>];
      scene.exec.linkOutput = `${JSON.stringify([{ ...device, ...change }])}\n${routes}\n`;
      // Its frames may not be redirectable either, which says nothing to an operator.
      scene.exec.failWhen = (run) => (run.args.includes('tc') ? new Error('no mirred here') : undefined);
      const error: unknown = await scene
        .network()
        .attach(background(), scene.request())
        .catch((thrown: unknown) => thrown);
      expect(error).to.have.property('class', 'FailedPrecondition');
      expect(String(error)).to.match(/eth0 .*; use bridge, ptp, macvlan/);
      expect((await scene.plugins.sequence()).slice(2)).to.deep.equal(['second DEL', 'first DEL']);
    });

  it('warns when published ports have no plugin', async () => {
    await scene.configure('10-net.conflist', { plugins: [{ type: 'first' }] });
    await scene.network().attach(background(), scene.request({ portMappings: [published] }));
    expect(scene.logger.lines.map(({ message }) => message).join()).to.include(
      'no plugin for published ports',
    );
  });

  it('never starts when a name could smuggle an argument in', async () => {
    const request = scene.request({
      metadata: { name: 'a;K8S_POD_NAMESPACE=x', namespace: 'n', uid: 'u', attempt: 0 },
    });
    const error: unknown = await scene
      .network()
      .attach(background(), request)
      .catch((thrown: unknown) => thrown);
    expect(error).to.have.property('class', 'InvalidArgument');
    expect(await scene.plugins.calls()).to.deep.equal([]);
  });

  it('is made for one pod while another one’s plugin waits', async () => {
    await scene.plugins.add('first', {
      ADD: `case "$CNI_CONTAINERID" in *0) while [ ! -e ${scene.directory}/go ]; do sleep 0.05; done;; esac\n${behave.result}`,
    });
    const network = scene.network();
    const slow = network.attach(background(), scene.request({ sandboxId: '0'.repeat(64) }));
    await network.attach(background(), scene.request({ sandboxId: '1'.repeat(64) }));
    await writeFile(`${scene.directory}/go`, '');
    await slow;
  });

  it('with a record that cannot be read is given back by the configuration in force', async () => {
    const [network, request] = [scene.network(), scene.request()];
    await network.attach(background(), request);
    await writeFile(scene.attachmentPath(request.sandboxId), '{"kind":');
    await network.detachGone(background(), request);
    expect((await scene.plugins.sequence()).slice(2)).to.deep.equal(['second DEL', 'first DEL']);
    expect(await readFile(`${scene.attachmentPath(request.sandboxId)}.broken`, 'utf8')).to.equal('{"kind":');
    await network.detachGone(background(), request);
    expect(await scene.plugins.calls()).to.have.length(4);
  });
});
