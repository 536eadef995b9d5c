import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { temporarySuffix } from '../../../lib/base/atomic-file.js';
import { eventually } from '../../tools/eventually.js';
import { HerkosdProcess, runningDaemons } from '../../tools/herkosd-process.js';
import { sandboxStates } from '../../tools/node-fixture.js';
import { sandboxConfig } from '../../tools/pod-config.js';

describe('the start of a node', () => {
  let daemon: HerkosdProcess | undefined;

  afterEach(async () => daemon?.cleanUp());

  it('proves the accelerator by a boot that its own sweep leaves alone', async function () {
    this.timeout(120_000);
    // A template that is made ahead would be found among what is left.
    const started = await HerkosdProcess.start({ accel: 'auto', config: { vm: 'templates = false' } });
    daemon = started;
    await eventually(async () => {
      const { status } = await started.client.runtime('status', {});
      return (
        status?.conditions?.some(({ type, status: is }) => type === 'RuntimeReady' && is === true) === true
      );
    });
    const { info } = await started.client.runtime('status', { verbose: true });
    const { accelerator, acceleratorWhy } = JSON.parse(info['config'] ?? '{}') as Record<string, string>;
    expect(['kvm', 'tcg']).to.include(accelerator);
    expect(acceleratorWhy).not.to.include('SIGKILL');
    expect(await started.leftovers()).to.deep.equal([]);
    if (accelerator === 'tcg' && !acceleratorWhy?.includes('no /dev/kvm')) {
      // Proven once for this boot of the host, not at every start.
      const remembered = await readFile(join(started.directory, 'state/accelerator.json'), 'utf8');
      await started.crash();
      await started.restart();
      expect(await readFile(join(started.directory, 'state/accelerator.json'), 'utf8')).to.equal(remembered);
    }
  });

  it('is refused without the program that jails VMs, and says where it should be', async () => {
    daemon = await HerkosdProcess.prepare({ config: { node: 'host_helper = "/nowhere/herkos-host"' } });
    daemon.spawn();
    await daemon.ended();
    expect(await daemon.log())
      .to.include('there is no program /nowhere/herkos-host')
      .and.to.include('hack/quickstart');
  });

  it('is refused without QEMU, and says how to set it', async () => {
    daemon = await HerkosdProcess.prepare({ config: { vm: 'qemu = "/nowhere/qemu"' } });
    daemon.spawn();
    await daemon.ended();
    expect(await daemon.log())
      .to.include('there is no program /nowhere/qemu')
      .and.to.include('set qemu in [vm]');
  });

  it('refuses a second daemon on the same state, before it touches any of it', async function () {
    this.timeout(120_000);
    daemon = await HerkosdProcess.start();
    const stateDirectory = join(daemon.directory, 'state');
    // As a pull and a write of a record that are under way have them.
    const unfinished = ['image/layers/a', 'sandboxes/b'].map((name) =>
      join(stateDirectory, name + temporarySuffix),
    );
    for (const path of unfinished) await writeFile(path, '');
    const second = await HerkosdProcess.prepare({ stateDirectory });
    try {
      second.spawn();
      await second.ended();
      expect(await second.log())
        .to.include('another daemon uses this state_dir')
        .and.to.include(join(stateDirectory, 'lock'));
    } finally {
      await second.cleanUp();
    }
    for (const path of unfinished) expect((await stat(path)).size).to.equal(0);
    await daemon.client.runtime('version', {});
    await daemon.crash();
    await daemon.restart();
    await daemon.stop();
    await daemon.restart();
  });

  it('refuses a second daemon of the same instance, whatever state it has', async () => {
    daemon = await HerkosdProcess.start();
    const { instance } = daemon;
    const config = sandboxConfig();
    const { podSandboxId } = await daemon.client.runtime('runPodSandbox', { config });
    const second = await HerkosdProcess.prepare({ instance });
    second.spawn();
    await second.ended();
    expect(await second.log()).to.include(`another daemon is the instance ${instance}`);
    const { status } = await daemon.client.runtime('podSandboxStatus', { podSandboxId });
    expect(status?.state).to.equal(sandboxStates.SANDBOX_READY);
    await daemon.removeAllPods();
    expect(await daemon.leftovers()).to.deep.equal([]);
    // Not its own clean-up, which goes by the instance.
    runningDaemons.delete(second);
    await rm(second.directory, { recursive: true });
  });

  it('leaves nothing of pods whose machines cannot start', async () => {
    daemon = await HerkosdProcess.prepare({ config: { vm: 'qemu = "/bin/false"' } });
    await daemon.restart();
    const { client } = daemon;
    for (let round = 0; round < 3; round += 1) {
      const failing = Array.from({ length: 4 }, () =>
        client.runtime('runPodSandbox', { config: sandboxConfig() }),
      );
      for (const { status } of await Promise.allSettled(failing)) expect(status).to.equal('rejected');
    }
    expect(await daemon.leftovers()).to.deep.equal([]);
  });

  it('refuses a second daemon on the same socket, and says what to do', async () => {
    daemon = await HerkosdProcess.start();
    const second = await HerkosdProcess.prepare({ socket: daemon.socketPath });
    try {
      second.spawn();
      await second.ended();
      expect(await second.log())
        .to.include('another process serves on')
        .and.to.include(daemon.socketPath);
    } finally {
      await second.cleanUp();
    }
    await daemon.client.runtime('version', {});
  });
});
