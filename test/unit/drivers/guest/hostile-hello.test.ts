/** A guest that wants to harm its host (S1): no hang, no crash, no growth, and an error that says what was wrong. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';

import { expect } from 'chai';
import Long from 'long';

import { withTimeout } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import { MIB } from '../../../../lib/base/units.js';
import { AgentConnector } from '../../../../lib/drivers/guest/connector.js';
import type { Guest } from '../../../../lib/pod/ports.js';
import { FakeAgent, goodHello } from '../../../fakes/guest-agent.js';
import type { AgentOverrides, Sent } from '../../../fakes/guest-agent.js';
import { GarbageGuest, frame, frameType } from '../../../fakes/guest-garbage.js';
import { eventually } from '../../../tools/eventually.js';
import { growthDuring } from '../../../tools/memory-growth.js';
import { rejection } from '../../../tools/rejection.js';

import { Undone, answer, forever, growthBytesMax, silent } from './hostile-bench.js';
import { testMachineId } from '../../../tools/machine-id.js';

describe('a hostile guest at the start', () => {
  const undo = new Undone();
  const connected = (overrides: AgentOverrides): Promise<Guest> => undo.connected(overrides);

  afterEach(() => undo.all());

  const helloFails = async (hello: Sent<'HelloResponse'>): Promise<unknown> => {
    const fake = await FakeAgent.listen({ hello: answer(hello) });
    undo.push(() => fake.close());
    return rejection(new AgentConnector().connect(forever, fake.socketPath, testMachineId));
  };
  /** Tries to connect for a moment; returns the error and how many connections were tried. */
  const garbage = async (
    behave: Parameters<typeof GarbageGuest.listen>[0],
    timeoutMs = 400,
  ): Promise<{ error: unknown; guest: GarbageGuest }> => {
    const guest = await GarbageGuest.listen(behave);
    undo.push(() => guest.close());
    const ctx = withTimeout(forever, timeoutMs, 'the hello');
    const error = await rejection(new AgentConnector().connect(ctx, guest.socketPath, testMachineId));
    ctx.cancel();
    // Whatever was tried is closed, also from our side.
    await eventually(() => guest.open === 0);
    return { error, guest };
  };

  describe('says hello', () => {
    it('in another version', async () => {
      const error = await helloFails({ ...goodHello, protocolVersion: 7 as 1 });
      expect(error).to.include({ class: 'FailedPrecondition', reason: 'GUEST_PROTOCOL_VERSION' });
      expect((error as HerkosError).message).to.contain('version 7');
    });

    it('with numbers that are none', async () => {
      for (const wrong of [
        { memoryBytes: Long.MAX_UNSIGNED_VALUE },
        { bootMilliseconds: Long.fromString('9007199254740993', true) },
        { cpus: 4_294_967_295 },
      ])
        expect(await helloFails({ ...goodHello, ...wrong })).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('with texts that would spoil a log', async () => {
      const kernelRelease = `6.1\n\x1b[2J\u202eevil\u2028${'x'.repeat(100_000)}`;
      const { info } = await connected({ hello: answer({ ...goodHello, kernelRelease }) });
      expect(info.kernelRelease).to.match(/^6\.1\uFFFD\uFFFD\[2J\uFFFDevil\uFFFDx+…$/);
      expect(info.kernelRelease.length).to.be.lessThan(130);
    });

    it('with a message of more than 4 MiB', async () => {
      const error = await helloFails({ ...goodHello, agentVersion: 'x'.repeat(5 * MIB) });
      expect(error).to.have.property('class', 'ResourceExhausted');
    });

    it('never', async () => {
      const fake = await FakeAgent.listen({ hello: silent });
      undo.push(() => fake.close());
      const ctx = withTimeout(forever, 200, 'the hello');
      const error = await rejection(new AgentConnector().connect(ctx, fake.socketPath, testMachineId));
      ctx.cancel();
      expect(error).to.have.property('class', 'DeadlineExceeded');
    });
  });

  describe('speaks no HTTP/2', () => {
    it('but is silent', async () => {
      const { error, guest } = await garbage(() => undefined);
      expect(error).to.have.property('class', 'DeadlineExceeded');
      expect(guest.connections).to.equal(1);
    });

    it('but random bytes', async () => {
      const { error } = await garbage((socket) => socket.write(randomBytes(100_000)));
      expect(error).to.have.property('class', 'DeadlineExceeded');
      expect((error as HerkosError).message).to.contain('before that');
    });

    it('but endless bytes', async () => {
      const block = randomBytes(MIB);
      let error: unknown;
      const behave = (socket: Socket): void => {
        const pour = (): void => {
          while (!socket.destroyed && socket.write(block));
        };
        socket.on('drain', pour);
        pour();
      };
      const growth = await growthDuring(async () => {
        ({ error } = await garbage(behave));
      });
      expect(error).to.have.property('class', 'DeadlineExceeded');
      expect(growth).to.be.lessThan(growthBytesMax);
    });

    it('but hangs up at once', async () => {
      const { error } = await garbage((socket) => socket.destroy());
      expect(error).to.have.property('class', 'DeadlineExceeded');
    });

    it('but the first half of a frame', async () => {
      const { error } = await garbage((socket) => {
        socket.write(frame(frameType.settings, 0, 0, Buffer.alloc(0)));
        socket.write(frame(frameType.headers, 4, 1, Buffer.alloc(10), 16_000));
      });
      expect(error).to.be.instanceOf(HerkosError);
    });

    it('but a frame larger than any may be', async () => {
      const { error } = await garbage((socket) => {
        socket.write(frame(frameType.settings, 0, 0, Buffer.alloc(0)));
        socket.write(frame(frameType.data, 0, 1, Buffer.alloc(1_000_000), 0xff_ffff));
      });
      expect(error).to.have.property('class', 'DeadlineExceeded');
    });

    it('but pings without end, whose answers it does not read', async () => {
      const pings = Buffer.concat(
        Array.from({ length: 10_000 }, () => frame(frameType.ping, 0, 0, Buffer.alloc(8))),
      );
      const behave = (socket: Socket): void => {
        socket.pause();
        socket.write(frame(frameType.settings, 0, 0, Buffer.alloc(0)));
        const pour = (): void => {
          while (!socket.destroyed && socket.write(pings));
        };
        socket.on('drain', pour);
        pour();
      };
      expect(await growthDuring(() => garbage(behave, 1_000))).to.be.lessThan(growthBytesMax);
    });

    it('because nobody is there', async () => {
      const error = await rejection(
        new AgentConnector().connect(forever, '/nonexistent/agent.sock', testMachineId),
      );
      expect(error).to.have.property('class', 'Unavailable');
      expect((error as HerkosError).message).to.contain('ENOENT');
    });
  });
});
