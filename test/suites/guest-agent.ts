/** What every agent of a guest must do, seen through the guest driver; run on the fake and in a real VM. */
import { expect } from 'chai';

import { background, withCancel, withTimeout } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { newId } from '../../lib/base/ids.js';
import { KIB } from '../../lib/base/units.js';
import type { Guest, GuestContainer, GuestExit, OutputStreamName } from '../../lib/pod/ports.js';
import { guestPrograms } from '../fakes/guest-containers.js';
import { rejection } from '../tools/rejection.js';

export interface GuestAgentHarness {
  /** A connection, when there is none: a guest takes one at a time. The harness ends it. */
  connect(): Promise<Guest>;
  /** A container's devices and configuration, ready for `createContainer`. */
  newContainer(args: readonly string[]): Promise<GuestContainer>;
  /** OCI process object that runs `args` in such a container, with these fields too. */
  newProcess(args: readonly string[], fields?: Readonly<Record<string, unknown>>): Buffer;
  cleanUp(): Promise<void>;
}

const ctx = background();
/** No agent keeps more of a stream that was read and acknowledged. */
const keptBytesMax = 256 * KIB;
const signalKill = 9;
const signalTerm = 15;

export function guestAgentSuite(name: string, makeHarness: () => Promise<GuestAgentHarness>): void {
  describe(`guest agent: ${name}`, () => {
    let harness: GuestAgentHarness;
    let guest: Guest;

    before(async () => {
      harness = await makeHarness();
      guest = await harness.connect();
    });

    after(async () => {
      await harness.cleanUp();
    });

    const create = async (args: readonly string[]): Promise<string> => {
      const container = await harness.newContainer(args);
      await guest.createContainer(ctx, container);
      return container.containerId;
    };
    const run = async (args: readonly string[]): Promise<string> => {
      const id = await create(args);
      await guest.startContainer(ctx, id);
      return id;
    };

    podTests(() => guest);
    sizeTests(() => ({ harness, guest, create, run }));
    lifeTests(() => ({ harness, guest, create, run }));
    outputTests(() => ({ harness, guest, create, run }));
    execTests(() => ({ harness, guest, create, run }));

    it('keeps everything while nobody is connected', async () => {
      const id = await run(guestPrograms.waitForTerm(3));
      await guest.close();
      await guest.lost;
      guest = await harness.connect();
      expect((await stateOf(guest, id))?.phase).to.equal('running');
      let shown = '';
      for await (const { data } of guest.readOutput(ctx, id, 'stdout', 0n)) {
        shown += data.toString();
        // Its first word says that it is ready for the signal, which the first process of a container does not hear before.
        if (data.length > 0 && shown === 'ready\n') await guest.signalContainer(ctx, id, signalTerm, false);
      }
      expect((await exitOf(guest, id)).exitCode).to.equal(3);
      expect(shown).to.equal('ready\n');
    });

    it('ends with its guest', async () => {
      await guest.shutdown(ctx);
      await guest.lost;
      expect(await rejection(guest.listContainers(ctx)))
        .to.be.instanceOf(HerkosError)
        .with.property('class', 'Unavailable');
    });
  });
}

interface Bench {
  readonly harness: GuestAgentHarness;
  readonly guest: Guest;
  readonly create: (args: readonly string[]) => Promise<string>;
  readonly run: (args: readonly string[]) => Promise<string>;
}

function podTests(guest: () => Guest): void {
  it('says who it is', () => {
    const { info } = guest();
    expect(info.agentVersion).to.match(/^\d+\.\d+\.\d+/);
    expect(info.kernelRelease).to.match(/^\d+\.\d+/);
    expect(info.ociRuntimeVersion).to.match(/^\d+\.\d+/);
    expect(info.cpus).to.be.greaterThan(0);
    expect(info.memoryBytes).to.be.greaterThan(32 * 1024 * 1024);
  });

  it('sets up a pod, and again', async () => {
    const setup = {
      hostname: 'pod-a',
      hosts: '127.0.0.1 localhost\n',
      resolvConf: 'nameserver 192.0.2.1\n',
      interfaces: [],
      sysctls: { 'net.ipv4.ip_unprivileged_port_start': '80' },
      shmBytes: 1024 * 1024,
    };
    await guest().setupPod(ctx, setup);
    await guest().setupPod(ctx, setup);
  });

  it('moves its clock, much at once and little over time', async () => {
    const movedBy = async (ms: number): Promise<number> =>
      Number(await guest().adjustClock(ctx, BigInt(ms) * 1_000_000n)) / 1_000_000;
    const before = await movedBy(0);
    const since = performance.now();
    const hourMs = 3_600_000;
    expect(await movedBy(-hourMs)).to.be.lessThan(before - hourMs / 2);
    expect(await movedBy(hourMs)).to.be.greaterThan(before);
    expect((await movedBy(499)) - before).to.be.lessThan(performance.now() - since + 400);
    // In place of what is left to move.
    await movedBy(1);
  });

  it('has never heard of a container that was not made', async () => {
    const id = newId();
    expect(await rejection(guest().startContainer(ctx, id))).to.have.property('class', 'NotFound');
    expect(await rejection(guest().signalContainer(ctx, id, signalTerm, false))).to.have.property(
      'class',
      'NotFound',
    );
    expect(await rejection(readAll(guest(), id, 'stdout'))).to.have.property('class', 'NotFound');
    await guest().removeContainerGone(ctx, id);
  });
}

function lifeTests(bench: () => Bench): void {
  it('creates, starts, kills and removes a container', async () => {
    const { guest, create } = bench();
    const id = await create(guestPrograms.waitForTerm(0));
    expect(await stateOf(guest, id)).to.deep.equal({ containerId: id, phase: 'created' });
    await guest.startContainer(ctx, id);
    expect((await stateOf(guest, id))?.phase).to.equal('running');
    await guest.signalContainer(ctx, id, signalKill, false);
    const exit = await exitOf(guest, id);
    expect(exit).to.include({ exitCode: 137, oomKilled: false });
    expect(BigInt(exit.finishedAt) > 0n).to.be.true;
    expect(await stateOf(guest, id)).to.deep.equal({ containerId: id, phase: 'exited', exit });
    await guest.removeContainerGone(ctx, id);
    await guest.removeContainerGone(ctx, id);
    expect(await stateOf(guest, id)).to.be.undefined;
  });

  it('tells the exit code to who asks later', async () => {
    const { guest, run } = bench();
    const id = await run(guestPrograms.print('', '', 42));
    expect((await exitOf(guest, id)).exitCode).to.equal(42);
    expect((await exitOf(guest, id)).exitCode).to.equal(42);
  });

  it('lets a container end itself on SIGTERM', async () => {
    const { guest, run } = bench();
    const id = await run(guestPrograms.waitForTerm(5));
    // Its first word says that it is ready for the signal.
    for await (const chunk of guest.readOutput(ctx, id, 'stdout', 0n)) if (chunk.data.length > 0) break;
    await guest.signalContainer(ctx, id, signalTerm, false);
    expect((await exitOf(guest, id)).exitCode).to.equal(5);
  });

  it('refuses a second container of the same id and a second start', async () => {
    const { harness, guest, run } = bench();
    const container = await harness.newContainer(guestPrograms.waitForTerm(0));
    await guest.createContainer(ctx, container);
    expect(await rejection(guest.createContainer(ctx, container))).to.have.property('class', 'AlreadyExists');
    await guest.removeContainerGone(ctx, container.containerId);
    const id = await run(guestPrograms.waitForTerm(0));
    expect(await rejection(guest.startContainer(ctx, id))).to.have.property('class', 'FailedPrecondition');
    await guest.removeContainerGone(ctx, id);
  });

  it('removes a container that runs', async () => {
    const { guest, run } = bench();
    const id = await run(guestPrograms.waitForTerm(0));
    await guest.removeContainerGone(ctx, id);
    expect(await stateOf(guest, id)).to.be.undefined;
  });
}

function sizeTests(bench: () => Bench): void {
  const limits = Buffer.from(JSON.stringify({ memory: { limit: 96 * 1024 * 1024 } }));

  it('changes the limits of a container, before and after its start', async () => {
    const { guest, create } = bench();
    const id = await create(guestPrograms.waitForTerm(0));
    await guest.updateContainer(ctx, id, limits);
    await guest.startContainer(ctx, id);
    await guest.updateContainer(ctx, id, limits);
    expect((await stateOf(guest, id))?.phase).to.equal('running');
    await guest.removeContainerGone(ctx, id);
  });

  it('has no limits to change where there is no container or it has ended', async () => {
    const { guest, run } = bench();
    expect(await rejection(guest.updateContainer(ctx, newId(), limits))).to.have.property(
      'class',
      'NotFound',
    );
    const id = await run(guestPrograms.print('', '', 0));
    await exitOf(guest, id);
    const error = await rejection(guest.updateContainer(ctx, id, limits));
    expect(error).to.have.property('class', 'FailedPrecondition');
    const garbage = await rejection(guest.updateContainer(ctx, id, Buffer.from('[]')));
    expect(garbage).to.have.property('class', 'InvalidArgument');
  });

  it('has its processors online, and cannot have any number', async () => {
    const { guest } = bench();
    await guest.onlineCpus(ctx, guest.info.cpus);
    for (const count of [0, 5000])
      expect(await rejection(guest.onlineCpus(ctx, count))).to.have.property('class', 'InvalidArgument');
  });

  it('says how much of its memory is free', async () => {
    const { guest } = bench();
    const { totalBytes, availableBytes } = await guest.memory(ctx);
    expect(totalBytes).to.be.within(guest.info.memoryBytes / 2, guest.info.memoryBytes * 2);
    expect(availableBytes).to.be.within(1, totalBytes);
  });
}

function outputTests(bench: () => Bench): void {
  it('keeps both streams apart and whole', async () => {
    const { guest, run } = bench();
    const id = await run(guestPrograms.print('to the left\n', 'to the right', 0));
    expect((await readAll(guest, id, 'stdout')).toString()).to.equal('to the left\n');
    expect((await readAll(guest, id, 'stderr')).toString()).to.equal('to the right');
  });

  it('goes on from any offset that was not acknowledged', async () => {
    const { guest, run } = bench();
    const id = await run(guestPrograms.print('0123456789', '', 0));
    expect((await readAll(guest, id, 'stdout')).toString()).to.equal('0123456789');
    expect((await readAll(guest, id, 'stdout', 7n)).toString()).to.equal('789');
  });

  it('has no output that was not printed yet', async () => {
    const { guest, run } = bench();
    const id = await run(guestPrograms.print('0123456789', '', 0));
    await exitOf(guest, id);
    expect((await readAll(guest, id, 'stdout', 10n)).toString()).to.equal('');
    // OUT_OF_RANGE is no error that anything of the host is asked to handle.
    expect(await rejection(readAll(guest, id, 'stdout', 11n))).to.have.property('class', 'Unknown');
  });

  it('hands out more than it keeps when it is acknowledged, and then begins with what it keeps', async () => {
    const { guest, run } = bench();
    const bytes = 3_000_000;
    const id = await run(guestPrograms.flood(bytes));
    let read = 0;
    const output = guest.readOutput(ctx, id, 'stdout', 0n);
    for await (const chunk of output) {
      expect(chunk.data.every((byte) => byte === 0)).to.be.true;
      read += chunk.data.length;
      output.acknowledge(BigInt(read));
    }
    expect(read).to.equal(bytes);
    expect((await exitOf(guest, id)).exitCode).to.equal(0);
    for (const from of [0n, 1_000n]) {
      const offsets: number[] = [];
      for await (const { offset, data } of guest.readOutput(ctx, id, 'stdout', from))
        offsets.push(Number(offset), Number(offset) + data.length);
      expect(offsets[0]).to.be.within(bytes - keptBytesMax, bytes);
      expect(offsets.at(-1)).to.equal(bytes);
    }
  });
}

function execTests(bench: () => Bench): void {
  it('runs a process in a container', async () => {
    const { harness, guest, run } = bench();
    const containerId = await run(guestPrograms.waitForTerm(0));
    const ociProcess = harness.newProcess(guestPrograms.print('out', 'err', 9));
    const result = await guest.exec(ctx, { containerId, ociProcess, outputBytesMax: 1024 });
    expect(result).to.deep.equal({ exitCode: 9, stdout: Buffer.from('out'), stderr: Buffer.from('err') });
  });

  it('lets the OOM killer treat a process as it treats the container', async () => {
    const { harness, guest, run } = bench();
    const containerId = await run(guestPrograms.waitForTerm(0));
    for (const [fields, score] of [
      [{ oomScoreAdj: 900 }, 900],
      [{ oomScoreAdj: -997 }, -997],
      [{}, 0],
    ] as const) {
      const ociProcess = harness.newProcess(guestPrograms.oomScore(), fields);
      const { stdout } = await guest.exec(ctx, { containerId, ociProcess, outputBytesMax: 1024 });
      expect(stdout.toString()).to.equal(`${String(score)}\n`);
    }
  });

  it('drops what is more than was asked for', async () => {
    const { harness, guest, run } = bench();
    const containerId = await run(guestPrograms.waitForTerm(0));
    const ociProcess = harness.newProcess(guestPrograms.flood(1_000_000));
    const result = await guest.exec(ctx, { containerId, ociProcess, outputBytesMax: 1000 });
    expect(result.exitCode).to.equal(0);
    expect(result.stdout).to.have.lengthOf(1000);
  });

  it('stops a process when its time is up', async () => {
    const { harness, guest, run } = bench();
    const containerId = await run(guestPrograms.waitForTerm(0));
    const ociProcess = harness.newProcess(guestPrograms.waitForTerm(0));
    const short = withTimeout(ctx, 300, 'the process');
    const error = await rejection(guest.exec(short, { containerId, ociProcess, outputBytesMax: 1024 }));
    short.cancel();
    expect(error).to.have.property('class', 'DeadlineExceeded');
    expect((await stateOf(guest, containerId))?.phase).to.equal('running');
  });

  it('runs nothing in a container that has ended', async () => {
    const { harness, guest, run } = bench();
    const containerId = await run(guestPrograms.print('', '', 0));
    await exitOf(guest, containerId);
    const ociProcess = harness.newProcess(guestPrograms.print('', '', 0));
    const error = await rejection(guest.exec(ctx, { containerId, ociProcess, outputBytesMax: 1 }));
    expect(error).to.have.property('class', 'FailedPrecondition');
  });
}

async function stateOf(
  guest: Guest,
  id: string,
): Promise<Awaited<ReturnType<Guest['listContainers']>>[0] | undefined> {
  return (await guest.listContainers(ctx)).find(({ containerId }) => containerId === id);
}

/** Waits for the end of one container. */
async function exitOf(guest: Guest, id: string): Promise<GuestExit> {
  const watch = withCancel(ctx);
  try {
    for await (const exit of guest.watchExits(watch)) if (exit.containerId === id) return exit;
  } finally {
    watch.cancel();
  }
  throw new Error('the guest stopped telling');
}

async function readAll(guest: Guest, id: string, stream: OutputStreamName, from = 0n): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const { data } of guest.readOutput(ctx, id, stream, from)) parts.push(data);
  return Buffer.concat(parts);
}
