import type { Socket } from 'node:net';

import { expect } from 'chai';

import { background, withCancel } from '../../../../lib/base/context.js';
import { QmpSession } from '../../../../lib/drivers/qemu/qmp-session.js';
import type { QmpEvent } from '../../../../lib/drivers/qemu/qmp-session.js';
import { StandInQemu, answer } from '../../../fakes/qmp-qemu.js';
import type { QmpRequest } from '../../../fakes/qmp-qemu.js';
import { rejection } from '../../../tools/rejection.js';

const ctx = background();
describe('qmp session', () => {
  const open: { close(): Promise<void> }[] = [];

  afterEach(async () => {
    for (const thing of open.splice(0)) await thing.close();
  });

  const serve = async (
    onRequest: (request: QmpRequest, socket: Socket) => void,
    hello?: string,
  ): Promise<StandInQemu> => {
    const qemu = new StandInQemu(onRequest, hello);
    await qemu.listen();
    open.push(qemu);
    return qemu;
  };

  it('matches answers with commands in whatever order they come', async () => {
    const held: QmpRequest[] = [];
    const qemu = await serve((request, socket) => {
      held.push(request);
      if (held.length === 2) for (const late of held.reverse()) answer(socket, late.id, late.execute);
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    expect(await Promise.all([session.execute(ctx, 'one'), session.execute(ctx, 'two')])).to.deep.equal([
      'one',
      'two',
    ]);
    session.destroy();
  });

  it("tells QEMU's own words when it refuses", async () => {
    const qemu = await serve(({ id }, socket) => {
      socket.write(`${JSON.stringify({ id, error: { class: 'GenericError', desc: 'no bus' } })}\r\n`);
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    const error = await rejection(session.execute(ctx, 'device_add'));
    expect(error).to.have.property('message', 'QEMU refused device_add: no bus');
    session.destroy();
  });

  it('passes events on until nobody listens', async () => {
    const qemu = await serve(({ id }, socket) => {
      socket.write('{"event": "DEVICE_DELETED", "data": {"device": "d0"}}\r\n');
      answer(socket, id, {});
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    const seen: QmpEvent[] = [];
    const off = session.onEvent((event) => seen.push(event));
    await session.execute(ctx, 'one');
    off();
    await session.execute(ctx, 'two');
    expect(seen.map(({ data }) => data)).to.deep.equal([{ device: 'd0' }]);
    session.destroy();
  });

  it('fails waiting and later commands when the connection ends', async () => {
    const qemu = await serve(() => {
      qemu.drop();
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    expect(await rejection(session.execute(ctx, 'quit'))).to.have.property('class', 'Unavailable');
    expect(await session.lost).to.be.a('string');
    expect(await rejection(session.execute(ctx, 'stop'))).to.have.property('class', 'Unavailable');
  });

  it('gives a command up with its context and takes no harm from the late answer', async () => {
    const held: QmpRequest[] = [];
    const qemu = await serve((request, socket) => {
      if (request.execute === 'slow') held.push(request);
      else for (const late of [...held, request]) answer(socket, late.id, late.execute);
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    const request = withCancel(ctx);
    const slow = session.execute(request, 'slow');
    request.cancel();
    expect(await rejection(slow)).to.have.property('class', 'Cancelled');
    expect(await session.execute(ctx, 'fast')).to.equal('fast');
    session.destroy();
  });

  it('does not take for QEMU what is not', async () => {
    const liar = await serve(() => undefined, 'HTTP/1.1 400 Bad QmpRequest\r\n\r\n');
    expect(await rejection(QmpSession.connect(ctx, liar.path))).to.have.property('class', 'Unavailable');
    const error = await rejection(QmpSession.connect(ctx, `${liar.path}.missing`));
    expect(error).to.have.property('class', 'Unavailable');
  });

  it('ends when a guest has QEMU send events without end, and not for those of a full disk', async () => {
    const event = (name: string): string => `{"event": "${name}", "data": {"info": {}}}\r\n`;
    const qemu = await serve(({ id, execute }, socket) => {
      socket.write(event(execute).repeat(execute === 'BLOCK_IO_ERROR' ? 10_000 : 1_001));
      answer(socket, id, {});
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    await session.execute(ctx, 'BLOCK_IO_ERROR');
    const error = await rejection(session.execute(ctx, 'ACPI_DEVICE_OST'));
    expect(error).to.have.property('class', 'Unavailable');
    expect(await session.lost).to.contain('too many events, ACPI_DEVICE_OST');
  });

  it('ends with a QEMU that floods it', async () => {
    const qemu = await serve((_, socket) => {
      socket.write(Buffer.alloc(2 * 1024 * 1024, 'x'));
    });
    const session = await QmpSession.connect(ctx, qemu.path);
    expect(await rejection(session.execute(ctx, 'one'))).to.have.property('class', 'Unavailable');
    expect(await session.lost).to.contain('longer than');
  });
});
