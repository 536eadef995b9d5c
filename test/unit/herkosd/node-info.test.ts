import { expect } from 'chai';

import { HerkosNodeInfo } from '../../../cmd/herkosd/node-info.js';
import { background, withCancel } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { parseConfig } from '../../../lib/config/load.js';
import { MemoryLogger } from '../../fakes/cni-logger.js';

const missing = new HerkosError('FailedPrecondition', 'there is no program qemu');
const soon = { firstMs: 1, mostMs: 2 };

describe('whether the node can run VMs', () => {
  it('is proven again until it is so, and its cause is logged once', async () => {
    const info = new HerkosNodeInfo(parseConfig('', 'x'));
    const log = new MemoryLogger();
    let tries = 0;
    const prove = async () => {
      tries += 1;
      if (tries > 1)
        expect(await info.health()).to.deep.equal({
          ready: false,
          reason: 'NoAccelerator',
          message: 'there is no program qemu',
        });
      if (tries < 4) throw missing;
      return { accelerator: 'kvm', why: 'the guest boots with KVM' } as const;
    };
    expect(await info.health()).to.include({ ready: false, reason: 'RuntimeStarting' });
    await info.learn(background(), prove, log, soon);
    expect(tries).to.equal(4);
    expect(await info.health()).to.have.property('ready', true);
    expect(log.lines.filter((line) => line.level === 'error')).to.have.length(1);
  });

  it('is asked no more when the daemon ends', async () => {
    const info = new HerkosNodeInfo(parseConfig('', 'x'));
    const life = withCancel(background());
    let tries = 0;
    await info.learn(
      life,
      async () => {
        tries += 1;
        if (tries === 3) life.cancel();
        return Promise.reject(missing);
      },
      new MemoryLogger(),
      soon,
    );
    expect(tries).to.equal(3);
  });
});
