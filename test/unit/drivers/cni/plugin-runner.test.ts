import { chmod, readFile } from 'node:fs/promises';

import { expect } from 'chai';

import { background, withTimeout } from '../../../../lib/base/context.js';
import type { HerkosError } from '../../../../lib/base/errors.js';
import { PluginRunner } from '../../../../lib/drivers/cni/plugin-runner.js';
import { behave } from '../../../fakes/cni-plugin.js';
import { Scene } from './scene.js';

const target = { containerId: 'abc', netnsPath: '/run/netns/x', ifName: 'eth0', cniArgs: '' };

describe('running a CNI plugin', () => {
  let scene: Scene;

  beforeEach(async () => {
    scene = await Scene.create();
  });

  afterEach(() => scene.dispose());

  async function failure(type: string, timeoutMs = 20_000): Promise<HerkosError> {
    const runner = new PluginRunner(scene.exec, { ...scene.settings, pluginTimeoutMs: timeoutMs });
    return runner.run(background(), 'ADD', type, target, {}).then(
      () => {
        throw new Error('it should have failed');
      },
      (error: unknown) => error as HerkosError,
    );
  }

  it('gives it the variables of the specification and nothing of the daemon', async () => {
    process.env['HERKOS_TEST_SECRET'] = 'secret';
    await scene.plugins.add('envy', { ADD: `env > ${scene.directory}/env; ${behave.result}` });
    const runner = new PluginRunner(scene.exec, scene.settings);
    await runner.run(background(), 'ADD', 'envy', target, { name: 'net' });
    delete process.env['HERKOS_TEST_SECRET'];
    const [call] = await scene.plugins.calls();
    expect(call?.env).to.include({ CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'abc', CNI_IFNAME: 'eth0' });
    expect(call?.env['CNI_PATH']).to.equal(scene.settings.binDirs.join(':'));
    expect(call?.input).to.deep.equal({ name: 'net' });
    expect(await readFile(`${scene.directory}/env`, 'utf8')).to.not.include('HERKOS_TEST_SECRET');
  });

  it('says which package brings a plugin that is missing', async () => {
    expect(await failure('bridge')).to.include({
      class: 'FailedPrecondition',
      reason: 'NetworkPluginMissing',
    });
    expect((await failure('bridge')).message).to.include('install the package containernetworking-plugins');
    expect((await failure('calico')).message).to.include('the network add-on that brings it');
  });

  it('does not take a file that cannot be run', async () => {
    await scene.plugins.add('locked');
    await chmod(`${scene.plugins.binDir}/locked`, 0o644);
    expect((await failure('locked')).message).to.include("'locked' is not in");
  });

  it('carries the words of its error report', async () => {
    await scene.plugins.add('bad', { ADD: behave.error(100, 'no address left') });
    const error = await failure('bad');
    expect(error.message).to.equal('CNI plugin bad (ADD): no address left (see the log), code 100');
    expect(error).to.include({ class: 'Internal', code: 100 });
  });

  it('takes an error report for a failure though the plugin says that it succeeded', async () => {
    await scene.plugins.add('calm', {
      ADD: behave.error(100, 'no policy').replace('exit 1', 'exit 0'),
    });
    const error = await failure('calm');
    expect(error.message).to.equal('CNI plugin calm (ADD): no policy (see the log), code 100');
  });

  it('says which plugin a signal has ended, and its words on one line', async () => {
    await scene.plugins.add('crash', { ADD: 'printf "one\\033[31m\\ntwo" >&2; kill -SEGV $$' });
    const { message } = await failure('crash');
    expect(message).to.match(/^CNI plugin crash \(ADD\): .* signal SIGSEGV: one \[31m two$/);
  });

  it('classes the errors that the specification names', async () => {
    await scene.plugins.add('later', { ADD: behave.error(11, 'busy') });
    await scene.plugins.add('old', { ADD: behave.error(1, 'version') });
    expect((await failure('later')).class).to.equal('Unavailable');
    expect((await failure('old')).class).to.equal('FailedPrecondition');
  });

  it('shows what one that broke printed', async () => {
    await scene.plugins.add('broken', { ADD: behave.garbage });
    expect((await failure('broken')).message).to.equal(
      'CNI plugin broken (ADD) failed with exit code 3: panic: everything is lost',
    );
  });

  it('stops one that prints without end', async () => {
    await scene.plugins.add('huge', { ADD: behave.huge });
    expect(await failure('huge')).to.have.property('class', 'ResourceExhausted');
  });

  it('stops one that hangs', async () => {
    await scene.plugins.add('slow', { ADD: behave.hang });
    expect((await failure('slow', 200)).message).to.equal('CNI plugin slow (ADD) took longer than 200 ms');
  });

  it('does not wait for the pipes of a killed plugin that its child keeps open', async () => {
    const pidFile = `${scene.directory}/child`;
    await scene.plugins.add('parent', { ADD: `sleep 1000 & echo $! > ${pidFile}; wait` });
    const runner = new PluginRunner(scene.exec, scene.settings);
    const ctx = withTimeout(background(), 500, 'the test');
    const error: unknown = await runner
      .run(ctx, 'ADD', 'parent', target, {})
      .catch((thrown: unknown) => thrown);
    process.kill(Number(await readFile(pidFile, 'utf8')), 'SIGKILL');
    expect(error).to.have.property('class', 'DeadlineExceeded');
  });
});
