import { mkdir, readFile, readdir, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { ConfigSource } from '../../../../lib/drivers/cni/config-source.js';
import { Scene } from './scene.js';

const builtIn = { name: 'own', bridge: 'own0', subnets: ['10.77.0.0/16'], mtu: 1400 };

describe('the network configuration in force', () => {
  let scene: Scene;
  let source: ConfigSource;

  beforeEach(async () => {
    scene = await Scene.create({ defaultNetwork: builtIn });
    source = new ConfigSource(scene.settings, scene.logger);
  });

  afterEach(() => scene.dispose());

  it('is the first file in lexical order', async () => {
    await scene.configure('05-earlier.conflist', { name: 'earlier' });
    await scene.write('00-readme.txt', 'not a configuration');
    expect((await source.current()).config.name).to.equal('earlier');
  });

  it('is no directory, whatever that is called', async () => {
    await mkdir(join(scene.settings.confDir, '05-earlier.conf'));
    expect((await source.current()).config.name).to.equal('net');
  });

  it('is read again when it changes, and only then', async () => {
    const before = await source.current();
    expect((await source.current()).config).to.equal(before.config);
    await scene.configure('10-net.conflist', { name: 'changed' });
    expect((await source.current()).config.name).to.equal('changed');
  });

  it('is read again when a file of the same size and time takes its place', async () => {
    const path = join(scene.settings.confDir, '10-net.conflist');
    await utimes(path, 1, 1);
    expect((await source.current()).config.name).to.equal('net');
    await rm(path);
    await scene.configure('10-net.conflist', { name: 'ten' });
    await utimes(path, 1, 1);
    expect((await source.current()).config.name).to.equal('ten');
  });

  it('is not the second file when the first one is broken', async () => {
    await scene.write('05-broken.conflist', '{\n"name": }');
    const error: unknown = await source.current().catch((thrown: unknown) => thrown);
    expect(error).to.include({ class: 'FailedPrecondition', reason: 'NetworkConfigInvalid' });
    expect(String(error)).to.match(/05-broken\.conflist \(line 2, column 9\) is not JSON/);
  });

  it('is the built-in network while there is no file, written to the own state and said once', async () => {
    await rm(join(scene.settings.confDir, '10-net.conflist'));
    const { path, config } = await source.current();
    await source.current();
    expect(path).to.equal(join(scene.settings.stateDir, 'net.d', '10-herkos-default.conflist'));
    expect(config.plugins.map(({ type }) => type)).to.deep.equal(['bridge', 'portmap']);
    expect(JSON.parse(await readFile(path, 'utf8'))).to.nested.include({
      name: 'own',
      'plugins[0].mtu': 1400,
      'plugins[0].ipam.ranges[0][0].subnet': '10.77.0.0/16',
      'plugins[0].ipam.dataDir': join(scene.settings.stateDir, 'ipam'),
    });
    expect(await readdir(scene.settings.confDir)).to.deep.equal([]);
    expect(scene.logger.lines.filter(({ message }) => message.includes('built-in'))).to.have.length(1);
  });

  it('is the add-on’s as soon as there is one', async () => {
    await rm(scene.settings.confDir, { recursive: true });
    expect((await source.current()).config.name).to.equal('own');
    await mkdir(scene.settings.confDir);
    await scene.configure('10-addon.conflist', { name: 'addon' });
    expect((await source.current()).config.name).to.equal('addon');
  });

  it('is missing when the built-in one is not wanted', async () => {
    const { defaultNetwork: _, ...settings } = scene.settings;
    await rm(join(scene.settings.confDir, '10-net.conflist'));
    const error: unknown = await new ConfigSource(settings, scene.logger)
      .current()
      .catch((thrown: unknown) => thrown);
    expect(error).to.include({ class: 'FailedPrecondition', reason: 'NetworkConfigMissing' });
  });

  it('changes with the settings of the built-in network', async () => {
    await rm(join(scene.settings.confDir, '10-net.conflist'));
    await source.current();
    const changed = { ...scene.settings, defaultNetwork: { ...builtIn, subnets: ['10.78.0.0/16'] } };
    const { path } = await new ConfigSource(changed, scene.logger).current();
    expect(await readFile(path, 'utf8')).to.include('10.78.0.0/16');
  });
});
