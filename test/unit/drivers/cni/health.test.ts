import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background, withTimeout } from '../../../../lib/base/context.js';
import { behave } from '../../../fakes/cni-plugin.js';
import { Scene } from './scene.js';

describe('whether the network is ready', () => {
  let scene: Scene;

  beforeEach(async () => {
    scene = await Scene.create();
  });

  afterEach(() => scene.dispose());

  it('is yes when the configuration and its plugins are there; nothing is run to know that', async () => {
    expect(await scene.network().status(background())).to.deep.equal({
      ready: true,
      reason: '',
      message: '',
    });
    expect(await scene.plugins.calls()).to.deep.equal([]);
  });

  it('is no without a configuration', async () => {
    await rm(join(scene.settings.confDir, '10-net.conflist'));
    expect(await scene.network().status(background())).to.include({
      ready: false,
      reason: 'NetworkConfigMissing',
    });
  });

  it('is no with a broken configuration, with the file and the line', async () => {
    await scene.write('10-net.conflist', '{\n\n!');
    const status = await scene.network().status(background());
    expect(status).to.include({ ready: false, reason: 'NetworkConfigInvalid' });
    expect(status.message).to.match(/10-net\.conflist \(line 3, column 1\)/);
  });

  it('is no when a plugin is missing, that of the addresses included, and yes when it is installed', async () => {
    await scene.configure('10-net.conflist', { plugins: [{ type: 'first', ipam: { type: 'host-local' } }] });
    const network = scene.network();
    const status = await network.status(background());
    expect(status).to.include({ ready: false, reason: 'NetworkPluginMissing' });
    expect(status.message).to.include("'host-local'").and.to.include('containernetworking-plugins');
    await scene.plugins.add('host-local');
    expect(await network.status(background())).to.have.property('ready', true);
  });

  it('is what the plugins of CNI 1.1 say, asked once for a while', async () => {
    await scene.configure('10-net.conflist', { cniVersion: '1.1.0' });
    await scene.plugins.add('second', { STATUS: behave.error(50, 'the controller is away') });
    const network = scene.network();
    for (const status of [await network.status(background()), await network.status(background())])
      expect(status).to.deep.equal({
        ready: false,
        reason: 'NetworkPluginNotReady',
        message: `${scene.settings.confDir}/10-net.conflist: CNI plugin second (STATUS): the controller is away (see the log), code 50`,
      });
    expect(await scene.plugins.sequence()).to.deep.equal(['first STATUS', 'second STATUS']);
  });

  it('is asked once for all, and neither waits long nor depends on who goes away', async () => {
    await scene.configure('10-net.conflist', { cniVersion: '1.1.0' });
    const go = join(scene.directory, 'go');
    await scene.plugins.add('first', { STATUS: `until [ -e '${go}' ]; do sleep 0.02; done` });
    const network = scene.network();
    const hasty = withTimeout(background(), 50, 'the request');
    const hurried = await network.status(hasty);
    const patient = await network.status(background());
    hasty.cancel();
    expect(hurried).to.have.property('message', 'the request took longer than 50 ms');
    expect(patient.message).to.match(/10-net\.conflist: the plugins have not said yet whether/);
    await writeFile(go, '');
    expect(await network.status(background())).to.have.property('ready', true);
    expect(await scene.plugins.sequence()).to.deep.equal(['first STATUS', 'second STATUS']);
  });

  it('is yes when plugins do not know STATUS', async () => {
    await scene.configure('10-net.conflist', { cniVersion: '1.1.0' });
    await scene.plugins.add('first', { STATUS: behave.error(4, 'unknown CNI_COMMAND: STATUS') });
    expect(await scene.network().status(background())).to.have.property('ready', true);
  });
});
