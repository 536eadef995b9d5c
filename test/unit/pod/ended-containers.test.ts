import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';
import { eventually } from '../../tools/eventually.js';

const ctx = background();

describe('containers that have ended', () => {
  let h: PodHarness;
  let pod: string;

  beforeEach(async () => {
    h = await PodHarness.create({ undoMs: 50, killMs: 50 });
    pod = await h.run();
  });

  afterEach(async () => h.close());

  const ended = async (script: string): Promise<string> => {
    const id = await h.start(pod, script);
    await eventually(() => h.pods.container(id).phase === 'exited');
    return id;
  };

  it('give their places to new ones, whatever became of them stays known', async () => {
    const vm = h.world.vm(pod);
    const lasting = await h.start(pod);
    const first = await ended('exit 3');
    vm.placesMax = [...vm.plugged.values()].flat().length + 1;
    // Places for its image, but not for its disk too.
    const next = await h.start(pod);
    expect([...vm.plugged.keys()]).to.have.members([lasting, next]);
    expect(h.pods.container(first)).to.include({ phase: 'exited' });
    expect(h.pods.container(first).exit).to.include({ code: 3 });
    await expectClass(h.create(pod), 'ResourceExhausted', /no place/);
    expect(h.pods.container(lasting).phase).to.equal('running');
    await h.pods.removeContainer(ctx, next);
    await h.start(pod);
    await h.pods.removeContainer(ctx, first);
  });

  it('may take long to go: the pod lives while its guest answers', async () => {
    const lasting = await h.start(pod);
    const slow = await ended('exit 0');
    h.daemon.fail('guest.removeContainer', 'hang');
    await expectClass(h.pods.removeContainer(ctx, slow), 'DeadlineExceeded');
    expect(h.pods.sandbox(pod).phase).to.equal('ready');
    expect(h.pods.container(lasting).phase).to.equal('running');
    await h.pods.removeContainer(ctx, slow);
    expect(h.pods.containers().map(({ id }) => id)).to.deep.equal([lasting]);
  });

  it('of a guest that does not answer go with their pod', async () => {
    const gone = await ended('exit 0');
    h.world.vm(pod).guest.frozen = true;
    await h.pods.removeContainer(ctx, gone);
    expect(h.pods.sandbox(pod).phase).to.equal('notready');
    expect(h.pods.containers()).to.deep.equal([]);
  });
});
