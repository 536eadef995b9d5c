import { expect } from 'chai';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../../lib/base/context.js';
import type { Pods } from '../../../lib/cri/ports.js';
import { containerConfig, sandboxConfig } from '../../fakes/pod-configs.js';
import { FakeWorld } from '../../fakes/pod-world.js';
import type { Incarnation } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

describe('the life of a pod', () => {
  let world: FakeWorld;
  let daemon: Incarnation;
  let pods: Pods;

  beforeEach(async () => {
    world = await FakeWorld.create();
    daemon = await world.daemon();
    pods = daemon.pods;
  });

  afterEach(async () => {
    await daemon.pods.close();
    await world.remove();
  });

  it('runs, logs, exits, stops and is removed without a trace', async () => {
    const ctx = background();
    const sandbox = await pods.runSandbox(ctx, sandboxConfig({ logDirectory: world.logDirectory }), '');
    expect(sandbox.phase).to.equal('ready');
    const config = containerConfig('echo hello; exit 3', { logPath: 'app/0.log' });
    const container = await pods.createContainer(ctx, sandbox.id, config);
    await pods.startContainer(ctx, container.id);
    await eventually(() => pods.container(container.id).phase === 'exited');
    expect(pods.container(container.id).exit).to.deep.equal({ code: 3, reason: 'Error', message: '' });
    expect(await readFile(join(world.logDirectory, 'app/0.log'), 'utf8')).to.match(/^\S+Z stdout F hello\n$/);
    await pods.stopSandbox(ctx, sandbox.id);
    expect(pods.sandbox(sandbox.id).phase).to.equal('notready');
    expect(world.vms.size + world.networks.size).to.equal(0);
    await pods.removeSandbox(ctx, sandbox.id);
    expect(pods.sandboxes()).to.deep.equal([]);
    expect(pods.containers()).to.deep.equal([]);
    expect(world.holds.size + world.sandboxes.size + world.containers.size).to.equal(0);
  });
});
