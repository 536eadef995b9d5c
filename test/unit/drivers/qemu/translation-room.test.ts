import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { QmpSession } from '../../../../lib/drivers/qemu/qmp-session.js';
import { freeRegions, whileStill } from '../../../../lib/drivers/qemu/translation-room.js';
import { StandInQemu, answer } from '../../../fakes/qmp-qemu.js';
import { rejection } from '../../../tools/rejection.js';

const capacityBytes = 33_472_512;
const text = (usedBytes: number): string =>
  `Translation buffer state:\ngen code size       ${String(usedBytes)}/${String(capacityBytes)}\nTB count 1\n`;

describe('room for vCPUs in the translation buffer', () => {
  it('counts a region for each vCPU, and those that are full', () => {
    expect(freeRegions(text(0), 1, 3)).to.equal(15);
    expect(freeRegions(text(0), 3, 3)).to.equal(13);
    expect(freeRegions(text(8_091_315), 1, 3)).to.equal(12);
    expect(freeRegions(text(33_170_259), 1, 3)).to.equal(0);
  });

  it('has never more full regions than there could be', () => {
    // All 16 are taken when 15 are full.
    const fullBytes = 2 * 1024 * 1024 - 8192;
    for (let full = 0; full < 16; full += 1)
      expect(freeRegions(text(full * fullBytes), 1, 3)).to.be.at.most(15 - full);
  });

  it('is small when the buffer is shared by many', () => {
    expect(freeRegions(text(0), 60, 64)).to.equal(4);
    expect(freeRegions(text(0), 1, 1)).to.equal(0);
  });

  it('is none when QEMU says something else', () => {
    for (const odd of ['', 'gen code size 5', 'JIT information is only available with accel=tcg'])
      expect(freeRegions(odd, 1, 3)).to.equal(0);
  });
});

describe('a guest that stands still', () => {
  it('goes on though the request ends while it is being stopped', async () => {
    const request = withCancel(background());
    const asked: string[] = [];
    const qemu = new StandInQemu(({ id, execute }, socket) => {
      asked.push(execute);
      if (execute === 'stop') request.cancel();
      answer(socket, id, { running: true });
    });
    await qemu.listen();
    const session = await QmpSession.connect(background(), qemu.path);
    try {
      const still = whileStill(request, session, { vcpus: 1, vcpusMax: 3 }, () => Promise.resolve());
      expect(await rejection(still)).to.have.property('class', 'Cancelled');
      expect(asked).to.deep.equal(['query-status', 'stop', 'cont']);
    } finally {
      session.destroy();
      await qemu.close();
    }
  });
});
