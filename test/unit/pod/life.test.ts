import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { PodHarness } from '../../fakes/pod-harness.js';
import { podLifecycleSuite } from '../../suites/pod-lifecycle.js';

podLifecycleSuite('on a world in memory', async () => {
  const h = await PodHarness.create();
  return {
    pods: h.pods,
    image: 'busybox',
    logDirectory: h.world.logDirectory,
    close: async () => {
      for (const { id } of h.pods.sandboxes()) await h.pods.removeSandbox(background(), id);
      const { vms, networks, holds, sandboxes, containers } = h.world;
      expect(vms.size + networks.size + holds.size + sandboxes.size + containers.size).to.equal(0);
      await h.close();
    },
  };
});
