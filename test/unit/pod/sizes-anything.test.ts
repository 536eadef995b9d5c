/** The size of a pod’s VM after calls and failures in any order. */
import { expect } from 'chai';
import fc from 'fast-check';

import { limitsOf } from '../../../lib/pod/spec/resources.js';
import { background } from '../../../lib/base/context.js';
import { sizeFor } from '../../../lib/vm/sizing.js';
import { limits } from '../../fakes/pod-configs.js';
import { PodHarness } from '../../fakes/pod-harness.js';
import { testSizing } from '../../fakes/pod-world.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();
const baseMib = 256;

describe('the size of a VM after anything', () => {
  const calls = ['resize', 'guest.onlineCpus', 'guest.updateContainer', 'container.put', 'plugDisk'];
  const failures = fc.record({
    call: fc.constantFrom(...calls),
    kind: fc.constantFrom('before' as const, 'after' as const),
    skip: fc.nat(2),
  });
  const action = fc.record({
    verb: fc.constantFrom('create' as const, 'update' as const, 'remove' as const, 'stop' as const),
    mib: fc.integer({ min: 1, max: 900 }),
    cpus: fc.integer({ min: 1, max: 3 }),
    which: fc.nat(9),
    failure: fc.option(failures, { freq: 3 }),
  });
  type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

  async function perform(
    h: PodHarness,
    sandbox: string,
    { verb, mib, cpus, which, failure }: Action,
  ): Promise<void> {
    if (failure !== null) h.daemon.fail(failure.call, failure.kind, failure.skip);
    const id = h.pods.containers()[which]?.id;
    if (verb === 'create') await h.start(sandbox, 'sleep', { resources: limits(mib, cpus) });
    else if (id === undefined) return;
    else if (verb === 'update') await h.pods.updateContainer(ctx, id, limits(mib, cpus));
    else if (verb === 'remove') await h.pods.removeContainer(ctx, id);
    else await h.pods.stopContainer(ctx, id, 0);
  }

  it('is what the records ask for, and limits are what they say', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(action, { maxLength: 4 }), { maxLength: 5 }), async (rounds) => {
        const h = await PodHarness.create();
        try {
          const sandbox = await h.run();
          for (const round of rounds) await Promise.allSettled(round.map((one) => perform(h, sandbox, one)));
          h.daemon.healthy();
          for (const one of h.pods.containers())
            if (one.changingTo !== undefined && one.phase !== 'exited')
              await h.pods.updateContainer(ctx, one.id, {});
          // Whatever failed, the next one that succeeds brings it all in order.
          const last = await h.create(sandbox, 'sleep', { resources: limits(1) });
          await h.pods.updateContainer(ctx, last, limits(2));
          await expectInOrder(h, sandbox);
        } finally {
          await h.close();
        }
      }),
      { numRuns: 60 },
    );
  });

  async function expectInOrder(h: PodHarness, sandbox: string): Promise<void> {
    const vm = h.world.vm(sandbox);
    const living = h.pods.containers().filter(({ phase }) => phase !== 'exited');
    const demand = living.map(({ config }) => ({ name: config.metadata.name, resources: config.resources }));
    const wanted = sizeFor(testSizing, { containers: demand });
    const memoryMib = Math.max(baseMib, wanted.memoryMib);
    await eventually(() => vm.size.memoryMib === memoryMib && vm.size.vcpus === wanted.vcpus);
    await eventually(() => vm.guest.cpus === wanted.vcpus);
    for (const { id, config } of living) {
      // A record of which nobody knows whether it was written is written again in the background.
      await eventually(() => !('changingTo' in (h.world.containers.get(id) ?? { changingTo: 'lost' })));
      const { memory, cpu } = vm.guest.container(id).limits;
      expect({ memory, cpu }).to.deep.include(limitsOf(config.resources));
    }
  }
});
