import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { CniNetnsFactory } from '../../../../lib/drivers/cni/netns.js';
import { RecordingExec } from '../../../fakes/cni-exec.js';

describe('a namespace for a VM', () => {
  it('has a tap for the VM’s uid, made with three processes', async () => {
    const exec = new RecordingExec();
    const made = await new CniNetnsFactory(exec, 'test').create(background(), 'test-ab12', 4711);
    expect(made).to.deep.equal({ path: '/run/netns/test-ab12', tap: 'tap0' });
    expect(exec.runs).to.have.length(3);
    expect(exec.runs[0]).to.deep.include({ program: 'ip', args: ['netns', 'add', 'test-ab12'] });
    expect(exec.runs[1]?.input).to.include('tuntap add dev tap0 mode tap user 4711\n');
  });

  it('is deleted when the tap cannot be made', async () => {
    const exec = new RecordingExec();
    exec.failWhen = (run) => (run.input.includes('tuntap') ? new Error('no tun here') : undefined);
    const error: unknown = await new CniNetnsFactory(exec, 'test')
      .create(background(), 'test-ab12', 4711)
      .catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('no tun here');
    expect(exec.runs.at(-1)?.args).to.deep.equal(['netns', 'delete', 'test-ab12']);
  });

  it('has a name of its instance, and of no other', async () => {
    const factory = new CniNetnsFactory(new RecordingExec(), 'test');
    for (const name of ['other-ab', 'test', 'test-', 'test-a-b', 'test-../x', 'test-AB'])
      for (const call of [
        () => factory.create(background(), name, 1),
        () => factory.deleteGone(background(), name),
      ])
        expect(await call().catch((thrown: unknown) => thrown)).to.have.property('class', 'InvalidArgument');
    expect(() => new CniNetnsFactory(new RecordingExec(), 'a-b')).to.throw(/may only hold/);
  });

  it('never belongs to a false uid', async () => {
    const factory = new CniNetnsFactory(new RecordingExec(), 'test');
    for (const uid of [-1, 1.5, 0xffff_ffff, Number.NaN])
      expect(
        await factory.create(background(), 'test-a', uid).catch((thrown: unknown) => thrown),
      ).to.have.property('class', 'InvalidArgument');
  });
});
