import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { classOf } from '../../../lib/base/errors.js';
import { containerConfig, sandboxConfig } from '../../fakes/pod-configs.js';
import { PodHarness } from '../../fakes/pod-harness.js';
import { podLifecycleSuite } from '../../suites/pod-lifecycle.js';

const ctx = background();

podLifecycleSuite('on a world in memory', async () => {
  const h = await PodHarness.create();
  const { pods } = h;
  const { logDirectory } = h.world;
  return {
    logDirectory,
    classOf,
    run: async () => (await pods.runSandbox(ctx, sandboxConfig({ logDirectory }), '')).id,
    create: async (sandbox, script, logPath) =>
      (await pods.createContainer(ctx, sandbox, containerConfig(script, { logPath }))).id,
    start: (id) => pods.startContainer(ctx, id),
    stop: (id, timeoutSeconds) => pods.stopContainer(ctx, id, timeoutSeconds),
    remove: (id) => pods.removeContainer(ctx, id),
    exec: (id, command) => pods.execSync(ctx, id, command, 1).then(() => undefined),
    stopSandbox: (id) => pods.stopSandbox(ctx, id),
    removeSandbox: (id) => pods.removeSandbox(ctx, id),
    isReady: (id) => Promise.resolve(pods.sandbox(id).phase === 'ready'),
    container: (id) => {
      const { phase, exit } = pods.container(id);
      if (phase !== 'created' && phase !== 'running' && phase !== 'exited')
        throw new Error(`a client may not see a container ${phase}`);
      return Promise.resolve({ phase, exitCode: exit?.code ?? 0, reason: exit?.reason ?? '' });
    },
    sandboxes: () => Promise.resolve(pods.sandboxes().map(({ id }) => id)),
    containers: () => Promise.resolve(pods.containers().map(({ id }) => id)),
    close: async () => {
      for (const { id } of pods.sandboxes()) await pods.removeSandbox(ctx, id);
      const { vms, networks, holds, sandboxes, containers } = h.world;
      expect(vms.size + networks.size + holds.size + sandboxes.size + containers.size).to.equal(0);
      await h.close();
    },
  };
});
