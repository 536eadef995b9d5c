/** A guest that wants to harm its host (S1): no hang, no crash, no growth, and an error that says what was wrong. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';

import { status } from '@grpc/grpc-js';
import type { ServerDuplexStream, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import { expect } from 'chai';
import Long from 'long';

import { background, withTimeout } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import { newId } from '../../../../lib/base/ids.js';
import { MIB } from '../../../../lib/base/units.js';
import { AgentConnector } from '../../../../lib/drivers/guest/connector.js';
import { exitsRememberedMax } from '../../../../lib/drivers/guest/limits.js';
import type { Guest } from '../../../../lib/pod/ports.js';
import { FakeAgent, goodHello } from '../../../fakes/guest-agent.js';
import type { AgentOverrides, Sent } from '../../../fakes/guest-agent.js';
import { GarbageGuest, frame, frameType } from '../../../fakes/guest-garbage.js';
import { eventually } from '../../../tools/eventually.js';
import { growthDuring } from '../../../tools/memory-growth.js';
import { rejection } from '../../../tools/rejection.js';

const forever = background();
const id = newId();
/** How much this process may grow while a guest sends without end. */
const growthBytesMax = 24 * MIB;

type Callback<Answer> = sendUnaryData<Answer>;
type Writer<Answer> = ServerWritableStream<unknown, Answer>;
type TwoWay<Answer> = ServerDuplexStream<unknown, Answer>;

function answer<Answer>(message: Answer) {
  return (_call: unknown, callback: Callback<Answer>): void => {
    callback(null, message);
  };
}

function silent(): void {
  // Never answers.
}

describe('a hostile guest', () => {
  const undo: (() => Promise<void>)[] = [];

  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step();
  });

  const connected = async (overrides: AgentOverrides): Promise<Guest> => {
    const fake = await FakeAgent.listen(overrides);
    undo.push(() => fake.close());
    const guest = await new AgentConnector().connect(forever, fake.socketPath);
    undo.push(() => guest.close());
    return guest;
  };
  const helloFails = async (hello: Sent<'HelloResponse'>): Promise<unknown> => {
    const fake = await FakeAgent.listen({ hello: answer(hello) });
    undo.push(() => fake.close());
    return rejection(new AgentConnector().connect(forever, fake.socketPath));
  };
  /** Tries to connect for a moment; returns the error and how many connections were tried. */
  const garbage = async (
    behave: Parameters<typeof GarbageGuest.listen>[0],
    timeoutMs = 400,
  ): Promise<{ error: unknown; guest: GarbageGuest }> => {
    const guest = await GarbageGuest.listen(behave);
    undo.push(() => guest.close());
    const ctx = withTimeout(forever, timeoutMs, 'the hello');
    const error = await rejection(new AgentConnector().connect(ctx, guest.socketPath));
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
      const error = await rejection(new AgentConnector().connect(ctx, fake.socketPath));
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
      const error = await rejection(new AgentConnector().connect(forever, '/nonexistent/agent.sock'));
      expect(error).to.have.property('class', 'Unavailable');
      expect((error as HerkosError).message).to.contain('ENOENT');
    });
  });

  describe('answers a call', () => {
    it('never', async () => {
      const guest = await connected({ listContainers: silent, startContainer: silent });
      const ctx = withTimeout(forever, 100, 'the call');
      expect(await rejection(guest.listContainers(ctx))).to.have.property('class', 'DeadlineExceeded');
      expect(await rejection(guest.startContainer(ctx, id))).to.have.property('class', 'DeadlineExceeded');
    });

    it('with an error that would spoil a log', async () => {
      const guest = await connected({
        startContainer: (_call: unknown, callback: Callback<unknown>) => {
          callback({ code: status.NOT_FOUND, details: `\x1b]0;evil\x07${'y'.repeat(5000)}` });
        },
      });
      const error = await rejection(guest.startContainer(forever, id));
      expect(error).to.be.instanceOf(HerkosError).with.property('class', 'NotFound');
      expect((error as HerkosError).message).to.match(
        /^starting the container in the guest: \uFFFD\]0;evil\uFFFDy+…$/,
      );
      expect((error as HerkosError).message.length).to.be.lessThan(600);
    });

    it('as if the host had cancelled it', async () => {
      const guest = await connected({
        startContainer: (_call: unknown, callback: Callback<unknown>) => {
          callback({ code: status.CANCELLED, details: '' });
        },
      });
      expect(await rejection(guest.startContainer(forever, id))).to.have.property('class', 'Aborted');
    });

    it('with containers that cannot be', async () => {
      const exit = { containerId: newId(), exitCode: 0 };
      const running = { containerId: id, phase: 2 };
      for (const containers of [
        [{ containerId: '../../etc/passwd', phase: 2 }],
        [{ containerId: id, phase: 9 }],
        [{ containerId: id, phase: 3 }],
        [{ containerId: id, phase: 3, exit }],
        [{ containerId: id, phase: 3, exit: { exitCode: 256 } }],
        [running, running],
        Array.from({ length: 5000 }, () => ({ containerId: newId(), phase: 1 })),
      ]) {
        const guest = await connected({ listContainers: answer({ containers }) });
        expect(await rejection(guest.listContainers(forever))).to.have.property('reason', 'GUEST_MISBEHAVED');
      }
    });

    it('with a time of its own', async () => {
      for (const [said, lowest] of [
        [Long.MAX_VALUE, BigInt(Date.now() - 60_000) * 1_000_000n],
        [Long.MIN_VALUE, 0n],
      ] as const) {
        const exit = { exitCode: 1, finishedAtUnixNano: said };
        const guest = await connected({
          listContainers: answer({ containers: [{ containerId: id, phase: 3, exit }] }),
        });
        const finishedAt = BigInt((await guest.listContainers(forever))[0]?.exit?.finishedAt ?? -1);
        expect(finishedAt >= lowest && finishedAt <= BigInt(Date.now() + 1) * 1_000_000n).to.be.true;
      }
    });
  });

  describe('tells ends of containers', () => {
    const watch = async (overrides: AgentOverrides): Promise<{ told: number; error: unknown }> => {
      const guest = await connected(overrides);
      let told = 0;
      const error = await rejection(
        (async () => {
          for await (const _exit of guest.watchExits(forever)) told += 1;
        })(),
      );
      return { told, error };
    };
    /** Writes as fast as the connection takes it, for ever. */
    const endless = (next: () => Sent<'ContainerExit'>) => (call: Writer<Sent<'ContainerExit'>>) => {
      const pour = (): void => {
        while (!call.cancelled && call.write(next()));
      };
      call.on('drain', pour);
      pour();
    };

    it('of ever new ones', async () => {
      const { told, error } = await watch({
        watchExits: endless(() => ({ containerId: newId(), exitCode: 0 })),
      });
      expect(told).to.equal(exitsRememberedMax);
      expect(error).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('again and again', async () => {
      const { told, error } = await watch({ watchExits: endless(() => ({ containerId: id, exitCode: 0 })) });
      expect(told).to.equal(1);
      expect(error).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('with an id that is a path', async () => {
      const { error } = await watch({
        watchExits: endless(() => ({ containerId: '/etc/passwd', exitCode: 0 })),
      });
      expect(error).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('and then no more', async () => {
      const { error } = await watch({
        watchExits: (call: Writer<unknown>) => {
          call.end();
        },
      });
      expect(error).to.have.property('class', 'Unavailable');
    });
  });

  describe('sends output', () => {
    const read = async (readOutput: (call: TwoWay<Sent<'OutputChunk'>>) => void): Promise<unknown> => {
      const guest = await connected({ readOutput });
      return rejection(
        (async () => {
          for await (const _chunk of guest.readOutput(forever, id, 'stdout', 10n));
        })(),
      );
    };
    const chunk = (offset: number, bytes: number, end = false): Sent<'OutputChunk'> => ({
      offset: Long.fromNumber(offset, true),
      data: Buffer.alloc(bytes, 'x'),
      end,
    });

    it('with a gap, backwards, or from elsewhere', async () => {
      for (const second of [16, 14, 0, Number.MAX_SAFE_INTEGER]) {
        const error = await read((call) => {
          call.write(chunk(10, 5));
          call.write(chunk(second, 5));
        });
        expect(error).to.include({ class: 'DataLoss', reason: 'GUEST_OUTPUT_GAP' });
      }
    });

    it('in chunks too large to be right', async () => {
      const error = await read((call) => call.write(chunk(10, 64 * 1024 + 1)));
      expect(error).to.have.property('reason', 'GUEST_MISBEHAVED');
      const larger = await read((call) => call.write(chunk(10, MIB)));
      expect(larger).to.have.property('class', 'Internal');
    });

    it('in chunks of nothing', async () => {
      expect(await read((call) => call.write(chunk(10, 0)))).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('that ends without an end', async () => {
      expect(
        await read((call) => {
          call.write(chunk(10, 5));
          call.end();
        }),
      ).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('without waiting for a reader, who is slow', async () => {
      const guest = await connected({
        readOutput: (call: TwoWay<Sent<'OutputChunk'>>) => {
          let offset = 0;
          const pour = (): void => {
            for (let more = true; more && !call.cancelled; offset += 65_536)
              more = call.write(chunk(offset, 65_536));
          };
          call.on('drain', pour);
          pour();
        },
      });
      const ctx = withTimeout(forever, 1_000, 'reading');
      const readSlowly = async (): Promise<void> => {
        for await (const one of guest.readOutput(ctx, id, 'stdout', 0n))
          if (one.offset === 0n) await new Promise((resolve) => setTimeout(resolve, 900));
      };
      let error: unknown;
      const growth = await growthDuring(async () => {
        error = await rejection(readSlowly());
      });
      ctx.cancel();
      expect(error).to.have.property('class', 'DeadlineExceeded');
      expect(growth).to.be.lessThan(growthBytesMax);
    });

    it('and reads no acknowledgement', async () => {
      const guest = await connected({
        readOutput: (call: TwoWay<Sent<'OutputChunk'>>) => {
          call.pause();
          let offset = 0;
          const pour = (): void => {
            for (let more = true; more && offset < 64 * MIB; offset += 1024) {
              more = call.write(chunk(offset, 1024));
            }
          };
          call.on('drain', pour);
          pour();
        },
      });
      const growth = await growthDuring(async () => {
        const output = guest.readOutput(forever, id, 'stdout', 0n);
        let read = 0;
        for await (const one of output) {
          read += one.data.length;
          output.acknowledge(BigInt(read));
          if (read >= 8 * MIB) break;
        }
      });
      expect(growth).to.be.lessThan(growthBytesMax / 2);
    });
  });

  describe('runs a process', () => {
    const run = async (
      exec: (call: TwoWay<Sent<'ExecResponse'>>) => void,
      timeoutMs = 60_000,
    ): Promise<unknown> => {
      const guest = await connected({ exec });
      const ctx = withTimeout(forever, timeoutMs, 'the process');
      try {
        return await guest.exec(ctx, {
          containerId: id,
          ociProcess: Buffer.from('{}'),
          outputBytesMax: 1000,
        });
      } catch (error) {
        return error;
      } finally {
        ctx.cancel();
      }
    };

    it('that prints for ever', async () => {
      let error: unknown;
      const exec = (call: TwoWay<Sent<'ExecResponse'>>): void => {
        const pour = (): void => {
          while (!call.cancelled && call.write({ stdout: Buffer.alloc(60_000) }));
        };
        call.on('drain', pour);
        pour();
      };
      const growth = await growthDuring(async () => {
        error = await run(exec, 1_000);
      });
      expect(error).to.have.property('class', 'DeadlineExceeded');
      expect(growth).to.be.lessThan(growthBytesMax);
    });

    it('that ends without an exit code, or with an impossible one', async () => {
      for (const last of [undefined, {}, { exitCode: 256 }, { exitCode: 4_294_967_295 }])
        expect(
          await run((call) => {
            if (last !== undefined) call.write(last);
            call.end();
          }),
        ).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('whose call does not end', async () => {
      const result = await run((call) => {
        call.write({ stdout: Buffer.from('a') });
        call.write({ exitCode: 3 });
      });
      expect(result).to.deep.equal({ exitCode: 3, stdout: Buffer.from('a'), stderr: Buffer.alloc(0) });
    });
  });

  it('hangs up in the middle of everything', async () => {
    const fake = await FakeAgent.listen({
      listContainers: silent,
      watchExits: silent,
      readOutput: silent,
      exec: silent,
    });
    const guest = await new AgentConnector().connect(forever, fake.socketPath);
    const all = [
      guest.listContainers(forever),
      guest.watchExits(forever)[Symbol.asyncIterator]().next(),
      guest.readOutput(forever, id, 'stdout', 0n)[Symbol.asyncIterator]().next(),
      guest.exec(forever, { containerId: id, ociProcess: Buffer.from('{}'), outputBytesMax: 1 }),
    ].map((promise) => rejection(promise));
    await fake.close();
    await guest.lost;
    for (const error of await Promise.all(all)) expect(error).to.have.property('class', 'Unavailable');
    expect(await rejection(guest.listContainers(forever))).to.have.property('class', 'Unavailable');
  });

  it('is let go of while it answers nothing', async () => {
    const guest = await connected({ listContainers: silent });
    const pending = rejection(guest.listContainers(forever));
    await guest.close();
    await guest.close();
    await guest.lost;
    expect(await pending).to.have.property('class', 'Unavailable');
  });
});
