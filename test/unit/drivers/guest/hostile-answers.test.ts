/** A guest that wants to harm its host (S1): no hang, no crash, no growth, and an error that says what was wrong. */

import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import Long from 'long';

import { withTimeout } from '../../../../lib/base/context.js';
import { HerkosError } from '../../../../lib/base/errors.js';
import { newId } from '../../../../lib/base/ids.js';
import { KIB, MIB } from '../../../../lib/base/units.js';
import { AgentConnector } from '../../../../lib/drivers/guest/connector.js';
import { exitsRememberedMax } from '../../../../lib/drivers/guest/limits.js';
import type { Guest } from '../../../../lib/pod/ports.js';
import { FakeAgent } from '../../../fakes/guest-agent.js';
import type { AgentOverrides, Sent } from '../../../fakes/guest-agent.js';
import { growthDuring } from '../../../tools/memory-growth.js';
import { rejection } from '../../../tools/rejection.js';

import { Undone, answer, forever, growthBytesMax, silent } from './hostile-bench.js';
import type { Callback, TwoWay, Writer } from './hostile-bench.js';
import { testMachineId } from '../../../tools/machine-id.js';

const id = newId();

describe('a hostile guest', () => {
  const undo = new Undone();
  const connected = (overrides: AgentOverrides): Promise<Guest> => undo.connected(overrides);

  afterEach(() => undo.all());

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

    it('with fewer processors than it was asked for, or more than there can be', async () => {
      for (const cpus of [1, 1_000_000]) {
        const guest = await connected({ onlineCpus: answer({ cpus }) });
        expect(await rejection(guest.onlineCpus(forever, 2))).to.have.property('reason', 'GUEST_MISBEHAVED');
      }
    });

    it('with more free memory than it has', async () => {
      for (const [totalBytes, availableBytes] of [
        [5, 6],
        [Long.MAX_UNSIGNED_VALUE, 6],
      ] as const) {
        const guest = await connected({ memoryInfo: answer({ totalBytes, availableBytes }) });
        expect(await rejection(guest.memory(forever))).to.have.property('reason', 'GUEST_MISBEHAVED');
      }
    });

    it('with a clock from before there were any', async () => {
      const guest = await connected({ adjustClock: answer({ unixNano: Long.fromNumber(-1) }) });
      expect(await rejection(guest.adjustClock(forever, 0n))).to.have.property('reason', 'GUEST_MISBEHAVED');
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

    it('from before what it was asked for, or from where no container ever gets', async () => {
      const early = await read((call) => call.write(chunk(9, 5)));
      expect(early).to.include({ class: 'DataLoss', reason: 'GUEST_OUTPUT_GAP' });
      const late = await read((call) => call.write({ ...chunk(0, 5), offset: Long.MAX_UNSIGNED_VALUE }));
      expect(late).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('with a gap after it began later than it was asked to', async () => {
      const error = await read((call) => {
        call.write(chunk(100, 5));
        call.write(chunk(106, 5));
      });
      expect(error).to.include({ class: 'DataLoss', reason: 'GUEST_OUTPUT_GAP' });
      expect((error as HerkosError).message).to.match(/at 106, not at 105$/);
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

    it('that prints nothing, over and over, or too much at once', async () => {
      for (const length of [0, 64 * KIB + 1])
        expect(
          await run((call) => {
            call.write({ stderr: Buffer.alloc(length) });
            call.write({ exitCode: 0 });
            call.end();
          }),
        ).to.have.property('reason', 'GUEST_MISBEHAVED');
    });

    it('that prints in small pieces, more than is kept', async () => {
      const result = await run((call) => {
        for (let i = 0; i < 700; i++)
          call.write({ [i % 2 === 0 ? 'stdout' : 'stderr']: Buffer.from(`${String(i % 10)}é`) });
        call.write({ exitCode: 0 });
        call.end();
      });
      const [even, odd] = [0, 1].map((first) =>
        Buffer.from(
          [0, 2, 4, 6, 8]
            .map((digit) => `${String(digit + first)}é`)
            .join('')
            .repeat(70),
        ).subarray(0, 1000),
      );
      expect(result).to.deep.equal({ exitCode: 0, stdout: even, stderr: odd });
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
    const guest = await new AgentConnector().connect(forever, fake.socketPath, testMachineId);
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
