import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { CniNetnsFactory } from '../../../../lib/drivers/cni/netns.js';
import { RecordingExec } from '../../../fakes/cni-exec.js';

describe('a namespace for a VM', () => {
  it('has a tap for the VM’s uid, made with one process', async () => {
    const exec = new RecordingExec();
    const made = await new CniNetnsFactory(exec, 'test', 'herkos-host').create(
      background(),
      'test-ab12',
      4711,
    );
    expect(made).to.deep.equal({ path: '/run/netns/test-ab12', tap: 'tap0' });
    expect(exec.runs).to.have.length(1);
    expect(exec.runs[0]?.program).to.equal('herkos-host');
    expect(exec.runs[0]?.args.join(' ')).to.match(/^netns .* --name test-ab12 --tap tap0 --uid 4711$/);
  });

  it('is deleted when the tap cannot be made', async () => {
    const exec = new RecordingExec();
    exec.failWhen = (run) => (run.program === 'herkos-host' ? new Error('no tun here') : undefined);
    const error: unknown = await new CniNetnsFactory(exec, 'test', 'herkos-host')
      .create(background(), 'test-ab12', 4711)
      .catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('no tun here');
    expect(exec.runs.at(-1)?.args).to.deep.equal(['netns', 'delete', 'test-ab12']);
  });

  it('has a name of its instance, and of no other', async () => {
    const factory = new CniNetnsFactory(new RecordingExec(), 'test', 'herkos-host');
    for (const name of ['other-ab', 'test', 'test-', 'test-a-b', 'test-../x', 'test-AB'])
      for (const call of [
        () => factory.create(background(), name, 1),
        () => factory.deleteGone(background(), name),
      ])
        expect(await call().catch((thrown: unknown) => thrown)).to.have.property('class', 'InvalidArgument');
    expect(() => new CniNetnsFactory(new RecordingExec(), 'a-b', 'herkos-host')).to.throw(/may only hold/);
  });

  it('never belongs to a false uid', async () => {
    const factory = new CniNetnsFactory(new RecordingExec(), 'test', 'herkos-host');
    for (const uid of [-1, 1.5, 0xffff_ffff, Number.NaN])
      expect(
        await factory.create(background(), 'test-a', uid).catch((thrown: unknown) => thrown),
      ).to.have.property('class', 'InvalidArgument');
  });
});
